"""Tells which version of the package is installed."""

from __future__ import annotations

from importlib import metadata

try:
    __version__ = metadata.version("power-loop")
except metadata.PackageNotFoundError:  # the source runs without being installed
    __version__ = "0+unknown"
