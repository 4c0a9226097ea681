"""Examining an erasure: the same pictures from the base and from the student, read by a scorer.

exam.py         what is asked, what a Scorer is, and `score`: a metric that counts answers belongs here
metrics.py      a metric that compares features of pictures belongs here
scorers.py      which scorer a batch gets: clip.py, nudenet.py, or that of the base's profile
evaluator.py    draws the pictures and puts the scores together
folders.py      pictures that are there already: `advanchor measure`
"""
