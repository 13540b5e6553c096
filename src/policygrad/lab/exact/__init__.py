"""Exact computations: MDPs as tables, J, V, Q and gradients of policies on them, and episodes."""
