"""A simulated fleet of agents that publish like the real agent, with optional faults."""
