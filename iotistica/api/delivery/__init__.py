"""Routes for the state of ingestion, dead letters, message gaps and live updates."""
