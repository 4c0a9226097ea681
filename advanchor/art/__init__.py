"""The art gallery: a world of real art, the same subjects by the hands of five open emoji sets."""
