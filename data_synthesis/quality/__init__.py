"""Quality gates: duplicates, contamination, balance."""
