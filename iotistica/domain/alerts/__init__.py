"""Rules of events, alert rules and incidents: what happened, what is watched, and who is told."""
