"""What a cluster did, in a file: written by `warmnode record`, replayed by `warmnode simulate --recorded`."""
