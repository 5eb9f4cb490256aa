"""Periodic background work, done by the process that holds the lease `background`."""
