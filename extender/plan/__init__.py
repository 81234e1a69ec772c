"""`warmnode plan`: what would be done now and why, from one look at a cluster or from a snapshot. Writes nothing."""
