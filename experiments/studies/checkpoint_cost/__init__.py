"""The `checkpoint_cost` study, and its gradients and figure."""
