"""The `cliff` study, and its figure."""
