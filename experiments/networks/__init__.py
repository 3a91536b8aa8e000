"""Networks that a study needs and the library does not have."""
