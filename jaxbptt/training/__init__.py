"""Optax loops: `trainer` makes one jitted step, `fit` runs many, watched by observers and kept by `checkpoints`."""

from jaxbptt.training import checkpoints, metrics
from jaxbptt.training.data import Order, shuffled
from jaxbptt.training.evaluation import Best, early_stopping, evaluator
from jaxbptt.training.fit import Fit, Run, Saver, fit
from jaxbptt.training.observers import Observer, Progress
from jaxbptt.training.step import Batch, Metrics, Skipped, Trainer, TrainState, trainer

__all__ = [
    "Batch", "Best", "Fit", "Metrics", "Observer", "Order", "Progress", "Run", "Saver", "Skipped", "TrainState",
    "Trainer", "checkpoints", "early_stopping", "evaluator", "fit", "metrics", "shuffled", "trainer",
]  # fmt: skip
