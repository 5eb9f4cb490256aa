"""Timed work under one lease."""
