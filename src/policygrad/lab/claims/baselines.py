"""Claims: baselines."""
