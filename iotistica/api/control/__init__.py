"""Routes for targets, updates and jobs."""
