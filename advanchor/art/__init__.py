"""The art gallery: a world of real art, the same subjects by the hands of five open emoji sets.

It has no profile yet: `advanchor art train` makes its weights, and nothing erases from them.
"""
