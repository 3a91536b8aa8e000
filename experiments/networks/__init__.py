"""Networks that a study needs and the library has not."""
