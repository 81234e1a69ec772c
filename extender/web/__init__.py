"""What the world calls: the scheduler's webhook, the claims and idle APIs, the history, and the operations listener."""
