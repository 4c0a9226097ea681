"""The mathematics that methods share, in plain PyTorch: one backbone, a delta, one training loop.

Begin with delta.py (teacher and student in one module), context.py (draws and predictions) and loop.py (`fit`).
projection.py has the closed forms, losses.py the paper's losses.
"""
