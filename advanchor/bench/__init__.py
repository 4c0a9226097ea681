"""Measurements of the program itself, each run through the product and written as a table with its command."""
