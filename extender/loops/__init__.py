"""Loops that act: they take the state, ask a policy, and carry out what it decided.

Each has one guard around a look: a bug is logged with its traceback and counted, and looking goes on.
"""
