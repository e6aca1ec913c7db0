"""A shop with an old and a new build, shoppers to visit it, and the whole job done on both."""
