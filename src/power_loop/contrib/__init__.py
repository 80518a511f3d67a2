"""Connects power-loop to other software, written as any user would write it: on public names of the package."""
