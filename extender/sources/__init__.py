"""Asks the outside whether workers are idle. Says what came of it as values, and decides nothing."""
