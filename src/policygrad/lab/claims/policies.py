"""Claims: policies."""
