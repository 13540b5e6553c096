"""What is kept on disk: model files, run directories, trajectories, and learning from them."""
