"""Stores what people arrange on the dashboard."""
