"""How right the differ is: planted regressions among honest noise, and who finds what. See `corpus`."""
