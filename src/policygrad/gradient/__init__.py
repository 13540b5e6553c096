"""The maths of policy gradients: tensors in, tensors out. No environment, network, optimiser, I/O or hidden randomness."""
