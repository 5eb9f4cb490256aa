"""Statements for readings, series and rollups, on plain PostgreSQL or TimescaleDB."""
