"""Checks of flags: one clear line, raised before any work."""

import importlib.util
import math
from collections.abc import Sequence

EXTRAS = {
    "matplotlib": "matplotlib",
    "rich": "rich",
    "tyro": "tyro",
    "sklearn": "scikit-learn",
    "scipy": "scipy",
    "mnist1d": "mnist1d",
    "orbax": "orbax-checkpoint",
    "tensorboardX": "tensorboardX",
    "pooch": "pooch",
    "jinja2": "jinja2",
}


class BadInputError(Exception):
    """Something in the command line that cannot be run; the message is all that the user needs."""


class NoDataError(BadInputError):
    """A data set that can't be had here: missing, out of reach or not the one that was published."""


def at_least(name: str, value: float, least: float) -> None:
    """Raises unless ``value ≥ least`` and finite.

    >>> at_least("epochs", -3, 1)
    Traceback (most recent call last):
    ...
    experiments.kit.options.BadInputError: `--epochs` must be at least 1: got -3
    """
    if not (math.isfinite(value) and value >= least):
        raise BadInputError(f"`{_flag(name)}` must be at least {least}: got {value}")


def seed(value: int) -> None:
    """Raises unless JAX, NumPy and scikit-learn all take it.

    >>> seed(2**32)
    Traceback (most recent call last):
    ...
    experiments.kit.options.BadInputError: `--seed` must be from 0 to 4294967295: got 4294967296
    """
    if not 0 <= value < 2**32:
        raise BadInputError(f"`--seed` must be from 0 to {2**32 - 1}: got {value}")


def positive(name: str, *values: float) -> None:
    """Raises unless there are values, all finite and above 0."""
    if not values or not all(math.isfinite(value) and value > 0 for value in values):
        raise BadInputError(f"`{_flag(name)}` must be above 0: got {', '.join(map(str, values)) or 'nothing'}")


def between(name: str, value: float, low: float, high: float) -> None:
    """Raises unless ``low < value < high``."""
    if not low < value < high:
        raise BadInputError(f"`{_flag(name)}` must lie between {low} and {high}: got {value}")


def require_extras(modules: Sequence[str] = tuple(EXTRAS)) -> None:
    """Raises when a package that only the experiments need, or these modules of them, is not installed."""
    missing = [EXTRAS[module] for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise BadInputError(f"{', '.join(missing)} not installed: run `pip install -e '.[experiments]'`")


def _flag(name):
    return "--" + name.replace("_", "-")
