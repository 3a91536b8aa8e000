"""The `mnist1d` study, and its task and figure."""
