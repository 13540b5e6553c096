"""The theory bench: lemmas, bounds and rates of policy gradients, measured on small MDPs."""
