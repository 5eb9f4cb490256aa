"""Rules for targets, updates, jobs and rollouts."""
