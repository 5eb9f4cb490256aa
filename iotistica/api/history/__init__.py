"""Routes for the audit and the timelines of agents."""
