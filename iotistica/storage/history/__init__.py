"""What happened: the audit of changes, and the timeline of each agent."""
