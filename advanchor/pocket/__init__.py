"""The pocket gallery: a Stable Diffusion of pocket size, trained from images it draws itself."""
