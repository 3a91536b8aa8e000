"""The `flossing` study, and its task, network and figure."""
