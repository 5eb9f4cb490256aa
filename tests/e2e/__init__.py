"""`iotistica serve` as a process, used as agents and operators use it."""
