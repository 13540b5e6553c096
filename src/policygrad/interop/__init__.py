"""Files that other tools read: TensorBoard's and Stable-Baselines3's."""
