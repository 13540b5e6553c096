"""The audit: bias and variance of gradient estimators, compared with the exact gradient."""
