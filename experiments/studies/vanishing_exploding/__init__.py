"""The `vanishing_exploding` study, and its figure."""
