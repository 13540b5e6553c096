"""Same batch, several update rules: what each would do, what it is worth, and how they hang together."""
