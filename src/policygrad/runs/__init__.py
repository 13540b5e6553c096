"""Runs: the Agent face, the training loop, run directories, evaluation, model files, plots."""
