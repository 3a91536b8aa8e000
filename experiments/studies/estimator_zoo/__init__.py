"""The `estimator_zoo` study: what it measures, its stacks and its figure."""
