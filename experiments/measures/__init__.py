"""What studies measure and the library does not."""
