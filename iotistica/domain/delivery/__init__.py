"""Rules for messages: topics, envelopes, key compaction, message numbers, fault attribution, worker scaling."""
