"""A run directory: the database of a run, readable from any machine. Nothing here needs Ray."""
