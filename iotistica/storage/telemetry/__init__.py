"""Readings, their series and rollups, on plain PostgreSQL or TimescaleDB."""
