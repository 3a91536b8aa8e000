"""The `copy_memory` study, and its network."""
