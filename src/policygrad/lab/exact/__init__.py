"""Exact worlds: MDPs as tables, what follows from a policy on them (J, V, Q, gradients), and episodes."""
