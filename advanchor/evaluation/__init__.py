"""Examining an erasure: the same pictures from the base and from the student, read by a scorer."""
