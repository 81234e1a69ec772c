"""Doubles of the outside world. Each passes the same contract tests as the real thing."""
