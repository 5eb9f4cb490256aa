"""Agents: identity, keys, broker accounts, fleets, tags, reported state, presence, logs, poll answers."""
