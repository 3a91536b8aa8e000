"""The studies: one file each, or a folder with a `study`, and its own task, networks and figure beside it."""
