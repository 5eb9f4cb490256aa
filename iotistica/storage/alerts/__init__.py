"""Events of agents, alert rules and incidents in the database."""
