"""The one interface for people and CI, and in `tools` the Python behind it."""
