"""A home in the cloud for edge agents."""

__version__ = "0.1.0"
