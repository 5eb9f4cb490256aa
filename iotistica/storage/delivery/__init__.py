"""Delivery of messages: durable streams, spool, ledgers, dead letters, key dictionaries, live updates."""
