"""Rules for messages: topics, envelopes, key compaction, message numbers, worker scaling."""
