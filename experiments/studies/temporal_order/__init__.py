"""The `temporal_order` study, and its task, networks and figure."""
