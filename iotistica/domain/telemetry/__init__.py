"""Rules for readings: normalisation, time grids, rollup sources, aggregates, disk budget."""
