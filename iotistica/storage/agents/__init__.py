"""Agents: identity, keys, broker accounts, fleets, tags, reported state, presence, logs, answers to polls."""
