"""The campaign: a whole stack, clients, faults, and a checker of what the clients saw."""
