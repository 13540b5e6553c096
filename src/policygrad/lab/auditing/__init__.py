"""The audit: bias and variance of gradient estimators, against the exact gradient."""
