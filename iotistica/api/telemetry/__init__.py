"""Routes for readings: queries, writing, export, erasure."""
