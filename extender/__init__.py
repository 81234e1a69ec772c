"""Warmnode: oldest nodes full, newest nodes empty."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("warmnode")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
