"""Agents of other frameworks as agents of ours. Nothing here is imported before it is asked for by its own name, and
each module needs its framework to be installed."""
