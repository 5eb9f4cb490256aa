"""Rules for target states, software updates, jobs and rollouts."""
