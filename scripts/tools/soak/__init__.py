"""The soak: everything at once, with faults, for as long as one likes. `scripts/soak` is the command.

A real control plane with fake nodes, replicas of `warmnode serve` and `warmnode reap` as processes, workers that follow
the protocol, claimants, a seeded schedule of faults, and an observer that knows the API server's record only.
"""
