"""`warmnode doctor` gathers: one look at a cluster, or a snapshot, becomes the evidence that `doctor` judges."""
