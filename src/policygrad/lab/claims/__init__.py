"""The claims that tutorials make of policy gradients, each an experiment."""
