"""Models of a worker pool that need no cluster. Pure: no clock, no I/O; randomness is a parameter."""
