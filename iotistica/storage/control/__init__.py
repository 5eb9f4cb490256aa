"""Stores the control of agents: target states, software updates, jobs and their rollouts."""
