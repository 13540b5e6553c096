"""Claims: improvement."""
