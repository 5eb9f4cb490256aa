"""A fleet of agents that behave like the real one, with faults."""
