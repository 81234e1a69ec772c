"""Loops that act: they take the state, ask a policy, and carry out what it decided."""
