"""Faults of the machine itself: its disk, its clocks, its cables. They are made by root, and with a C compiler."""
