"""What is known of the cluster: objects, ages, order, keys, and the feed that keeps them up to date."""
