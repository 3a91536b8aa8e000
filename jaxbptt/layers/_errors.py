"""Layers, their sizes, dropout, and what takes one step at a time."""

from jaxbptt._errors import arguments
from jaxbptt.types import Cell


def layers(value, kinds):
    """At least one, each a cell or of two directions."""
    for k, layer in enumerate(value):
        if not isinstance(layer, (Cell, kinds)):
            made = ", and is not called yet" if hasattr(layer, "is_factory") else ""
            raise TypeError(
                f"`cell[{k}]` must be a Cell, or `jb.bidirectional(…)`: got a {type(layer).__name__}{made}; make a "
                "layer as in `jb.cells.gru()`"
            )
    if not value:
        raise ValueError("`cell` must have at least one layer: got an empty tuple")


def dropout(rate, per):
    arguments.numbers(dropout=rate)
    if not 0 <= rate < 1:
        raise ValueError(f"`dropout` must lie from 0 to below 1: got {rate!r}; it is the share that is dropped")
    arguments.one_of("dropout_per", per, ("step", "sequence"), '"sequence" drops the same at every step')


def one_size_each(sizes, number):
    if len(sizes) != number:
        raise ValueError(
            f"`hidden_size` must be one number, or one for each of the {number} layers: got {len(sizes)} of them"
        )


def directions(kind, **trees):
    for name, value in trees.items():
        if not isinstance(value, kind):
            raise TypeError(
                f"`{name}` of a layer of two directions must be a Directions: got {type(value).__name__}; make it with "
                "`model.init` or `model.initial_state`"
            )


def no_cell(who, residual):
    why = "layers with residual connections are" if residual else "a bidirectional layer is"
    more = "" if residual else ": its output at t has read x_T … x_t, which are not there yet"
    raise NotImplementedError(
        f"`{who}` takes one step after another, and {why} no causal cell{more}; use `model.apply`, `jb.objective` or "
        "`estimators.bptt` on whole sequences"
    )


def no_dropout(who, dropout):
    raise NotImplementedError(
        f"`{who}` takes all layers at each step and drops nothing between them: got a model with dropout={dropout}; "
        "use `estimators.bptt`, or a model without dropout"
    )


def nothing_between(dropout, residual):
    raise ValueError(
        f"`dropout` and `residual` are of layers: got dropout={dropout!r}, residual={residual!r} and one cell; give "
        "`cell` as a tuple, `jb.rnn((cell, cell), readout, …)`"
    )
