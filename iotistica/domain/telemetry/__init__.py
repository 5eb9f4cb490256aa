"""Rules for readings: normalising, time grids, rollups, aggregates, disk budget."""
