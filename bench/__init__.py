"""Measurements: ours and the yardsticks in one run, on a stack of their own. `make bench`, `make bench-quick`."""
