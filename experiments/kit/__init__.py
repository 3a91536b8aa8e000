"""What studies share: flags, files and devices, training, plots, and tasks and measures of more than one study."""
