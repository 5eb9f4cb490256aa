"""Messages on their way: durable streams and spool, ledgers, dead letters, dictionaries, live updates."""
