"""What studies stand on: flags, files and devices, a clock, and training with checkpoints, by itself or over seeds."""
