"""Record production traffic, replay it against staging, and say with evidence what changed."""

__version__ = "0.1.0"
