"""What studies stand on: flags, files and devices, training with checkpoints, by itself and over seeds, and a clock."""
