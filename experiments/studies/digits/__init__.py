"""The `digits` study, and its task and figure."""
