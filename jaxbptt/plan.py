"""Which adjoint fits in memory, before anything is run: the compiler's bytes and the extra steps, side by side."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt import _axes
from jaxbptt._errors import arguments as check
from jaxbptt._errors import words
from jaxbptt._trees import cotangents
from jaxbptt.adjoints import full
from jaxbptt.adjoints.checkpointed import Checkpointed, checkpointed, revolve, rows
from jaxbptt.model import rnn
from jaxbptt.objective import Objective
from jaxbptt.readouts import identity
from jaxbptt.types import Adjoint, Cell, Model, PyTree, Theta


class Row(NamedTuple):
    """One adjoint.

    Attributes:
        name: how to write it.
        adjoint: itself.
        bytes: what the compiled gradient takes beside its arguments and results: the compiler's ``temp_size_in_bytes``.
        extra_steps: how many steps of f `checkpointed` runs beyond the T of the first sweep, again or as padding.

    >>> from jaxbptt import adjoints
    >>> Row("full()", adjoints.full(), bytes=2**20, extra_steps=0).bytes
    1048576
    """

    name: str
    adjoint: Adjoint
    bytes: int
    extra_steps: int


class Plan(NamedTuple):
    """The adjoints that were compiled, in that order, and the bytes there are. ``str`` makes a table of it.

    >>> from jaxbptt import adjoints
    >>> table = Plan((Row("full()", adjoints.full(), bytes=2**20, extra_steps=0),), fits=2**21)
    >>> print(table)
    adjoint         MiB   extra steps  fits
    full()          1.0             0  yes
    >>> table.best.name
    'full()'
    """

    rows: tuple[Row, ...]
    fits: int | None

    @property
    def best(self) -> Row | None:
        """The first row that fits; ``None`` when none does."""
        return next((row for row in self.rows if _is_within(row, self.fits)), None)

    def __str__(self):
        width = max(len(row.name) for row in self.rows)
        lines = [f"{'adjoint':{width}}  {'MiB':>10}  {'extra steps':>12}" + ("" if self.fits is None else "  fits")]
        for row in self.rows:
            fits = "" if self.fits is None else f"  {'yes' if _is_within(row, self.fits) else 'no'}"
            lines.append(f"{row.name:{width}}  {row.bytes / 2**20:10.1f}  {row.extra_steps:12d}{fits}")
        return "\n".join(lines)


def plan(
    target: Objective | Model | Cell,
    theta: PyTree,
    xs: PyTree,
    ys: PyTree | None = None,
    h_0: PyTree | None = None,
    *,
    mask: PyTree | None = None,
    lengths: PyTree | None = None,
    adjoints: Mapping[str, Adjoint] | None = None,
    fits: int | None = None,
) -> Plan:
    """Compiles the gradient with respect to `theta` for one adjoint after another, and reads the memory it takes.

    ``plan(F, theta, xs, ys, h_0)`` is of your own loss. ``plan(model, theta, xs, h_0)`` and ``plan(cell, theta_h, xs,
    h_0)`` are of the sum of squares of the outputs. Nothing is run, so shapes do: here and below an array or its
    ``jax.ShapeDtypeStruct``. The bytes are those that ``jax.jit(jax.grad(F))`` takes on the default device beside its
    arguments and its result.

    Args:
        target: F from `jaxbptt.objective`, a `Model` or a `Cell`.
        theta: the parameters, as ``init`` makes them: a `Theta`, or θ_h for a cell.
        xs: the inputs, leaves ``[T, *batch, …]``.
        ys: the targets, leaves ``[T, *batch, …]``. A model or a cell has none: there the fourth argument is h_0.
        h_0: the initial state, leaves ``[*batch, …]``; ``None`` is the model's own.
        mask: ``[T, *batch]``, as F takes it.
        lengths: ``[*batch]``, likewise.
        adjoints: what to compile, by name, the fastest first. ``None`` is `full`, with gates and with states, and
            `checkpointed` at several numbers of slots, the largest first.
        fits: the bytes there are. The first adjoint that fits ends the search: it is `Plan.best` and the last row.

    Returns:
        A `Plan`, a row for each adjoint compiled.

    Raises:
        TypeError, ValueError: for another `target`, `adjoints` that are no dictionary of adjoints, `fits` that is no
            positive integer, and whatever F itself refuses.

    Costs one compilation a row: 0.7 to 2.1 s of a CPU core (Elman, GRU, LSTM; n = 64; T from 100 to 1,000,000).

    >>> import jax, jax.numpy as jnp, jaxbptt as jb
    >>> F = jb.objective(jb.rnn(jb.cells.lstm(), jb.readouts.linear()), jb.losses.l2_loss)
    >>> theta = F.model.init(jax.random.key(0), input_size=4, hidden_size=64, output_size=1)
    >>> xs, ys = (jax.ShapeDtypeStruct((1000, 8, size), jnp.float32) for size in (4, 1))
    >>> adjoints = {"full": jb.adjoints.full(), "30 slots": jb.adjoints.checkpointed(30)}
    >>> answer = plan(F, theta, xs, ys, adjoints=adjoints, fits=10 * 2**20)
    >>> answer.rows[0].bytes > 10 * 2**20, answer.best.name
    (True, '30 slots')
    """
    _planned(target)
    if fits is not None:
        check.count("fits", fits)
    adjoints = _ladder(_axes.time_axis("xs", xs)) if adjoints is None else adjoints
    _named_adjoints(adjoints)
    if isinstance(target, Cell):
        target, theta = rnn(target, identity()), Theta(theta, ())
    if isinstance(target, Objective):
        model, arguments = target.model, (theta, xs, ys, h_0)
    else:
        _no_loss(ys=None if h_0 is None else ys, mask=mask, lengths=lengths)
        model, h_0 = target, ys if h_0 is None else h_0
        arguments = (theta, xs, h_0)
    options = {name: given for name, given in (("mask", mask), ("lengths", lengths)) if given is not None}
    found = []
    for name, adjoint in adjoints.items():
        gradient = jax.grad(_with_adjoint(target, adjoint), allow_int=True)
        analysis: Any = jax.jit(gradient).lower(*arguments, **options).compile().memory_analysis()
        again = extra_steps(adjoint, model, theta, xs, h_0)
        found.append(Row(name, adjoint, analysis.temp_size_in_bytes, again))
        if fits is not None and _is_within(found[-1], fits):
            break
    return Plan(tuple(found), fits)


def extra_steps(adjoint: Adjoint, model: Model, theta: Theta, xs: PyTree, h_0: PyTree | None = None) -> int:
    """`Row.extra_steps`, counted in the schedule: nothing is compiled. Arguments as for `plan` of a model."""
    if not isinstance(adjoint, Checkpointed):
        return 0
    h_0 = jax.eval_shape(functools.partial(_axes.initial_state, model), theta, xs, h_0)
    return revolve.schedule(*rows.terms(adjoint, _axes.whole(model), theta.h, xs, h_0)).extra_steps


def _is_within(row, fits):
    return fits is None or row.bytes <= fits


def _with_adjoint(target, adjoint):
    if isinstance(target, Objective):
        return dataclasses.replace(target, adjoint=adjoint)
    return functools.partial(_sum_of_squares, target, adjoint)


def _sum_of_squares(model, adjoint, theta, xs, h_0):
    leaves = filter(cotangents.has_derivative, jax.tree.leaves(model.apply(theta, xs, h_0, adjoint=adjoint)))
    return sum((jnp.sum(jnp.real(leaf * jnp.conj(leaf)), dtype=float) for leaf in leaves), jnp.zeros(()))


def _ladder(T):
    """From the fastest to the smallest."""
    fewer = (*(T // share for share in (2, 5, 10, 20, 50)), *(revolve.two_level_slots(T) // k for k in (1, 4)))
    slots = sorted({max(1, c) for c in fewer}, reverse=True)
    ladder = {"full()": full(), "full(residuals='states')": full(residuals="states")}
    return ladder | {f"checkpointed(slots={c})": checkpointed(slots=c) for c in slots}


def _planned(value):
    if not isinstance(value, (Objective, Model, Cell)):
        hint = "make one with `jb.objective(model, loss)`, and give that itself, no transformation of it"
        if hasattr(value, "is_factory"):
            hint = "call the factory, as in `cells.gru()`"
        raise words.other("target", "an objective, a Model or a Cell", value, f"; {hint}")


def _no_loss(**arguments):
    """What only an objective takes: of a model or a cell, `plan` makes the loss itself."""
    remedy = "; for a loss of your own plan `jb.objective(model, loss)`"
    for name, value in arguments.items():
        if value is not None:
            wanted = "left out for a Model or a Cell, as in `plan(model, theta, xs, h_0)`"
            raise words.other_type(name, wanted, value, remedy)


def _named_adjoints(adjoints):
    if not isinstance(adjoints, Mapping):
        remedy = '; write `{"full": adjoints.full()}`, for one'
        raise words.other_type("adjoints", "a dictionary from names to adjoints", adjoints, remedy)
    if not adjoints:
        raise ValueError("`adjoints` must have at least one entry: got none; leave it out for the usual ones")
    for value in adjoints.values():
        check.adjoint(value)
