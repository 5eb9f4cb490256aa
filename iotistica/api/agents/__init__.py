"""Routes for agents and fleets, and those that agents call themselves."""
