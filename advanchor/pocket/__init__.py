"""The pocket gallery: a Stable Diffusion of pocket size, trained from images it draws itself.

world.py says what exists in it and profile.py makes it known to `models`. A world of your own needs a profile alone.
"""
