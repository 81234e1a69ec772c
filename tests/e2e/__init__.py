"""End to end: the built image, installed as users do, in a real cluster with containers. scripts/e2e runs it."""
