"""Applies alert rules to what was stored, and opens and resolves incidents."""
