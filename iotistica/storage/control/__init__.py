"""What agents are told to be and to do: targets, updates, jobs and their rollouts."""
