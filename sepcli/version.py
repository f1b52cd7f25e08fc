"""The version of the package, which every room may know."""

__version__ = "0.1.0"
