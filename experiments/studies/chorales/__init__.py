"""The `chorales` study, and its music and figure."""
