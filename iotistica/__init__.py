"""Iotistica: a cloud platform for edge agents."""

__version__ = "0.1.0"
