"""Rules for agents: broker accounts and topics, key proofs, reported state, presence, logs and tags."""
