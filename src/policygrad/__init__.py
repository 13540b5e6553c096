"""policygrad."""
