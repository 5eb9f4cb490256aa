"""How fast it is: generate, load, report. Each figure stands beside its baseline of the same run."""
