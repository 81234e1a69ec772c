"""Decides, never acts: no clock, no log, no I/O, no event loop. Every function here is pure."""
