"""Methods that learn values, on small MDPs: Q-learning and its relatives, and what policy gradients do on the same tasks."""
