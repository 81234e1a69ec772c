"""What the world calls: the webhook, the operations listener, and the wire format between them and the policies."""
