"""Files on disk: models, run directories, trajectories, and learning from them."""
