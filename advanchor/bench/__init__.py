"""Measurements of the program itself; each is a command under `advanchor bench`."""
