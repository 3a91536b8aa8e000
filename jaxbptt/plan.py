"""Which adjoint fits in memory, before anything is run: predicted bytes and extra steps, side by side."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt import _axes, _live_bytes
from jaxbptt._errors import arguments, trees
from jaxbptt._trees import cotangents
from jaxbptt.adjoints import full
from jaxbptt.adjoints.checkpointed import Checkpointed, checkpointed
from jaxbptt.adjoints.checkpointed import revolve as _revolve
from jaxbptt.adjoints.checkpointed import rows as _rows
from jaxbptt.types import Adjoint, Cell, Model, PyTree
from jaxbptt.unroll import unroll


class Row(NamedTuple):
    """One adjoint.

    Attributes:
        name: how to write it.
        adjoint: itself.
        bytes: what the gradient is predicted to hold at its worst moment, besides its arguments and results.
        extra_steps: how many steps of f `checkpointed` runs again, beyond the T of the first sweep. (The few that two
            overlapping blocks of another adjoint share are not counted.)

    >>> from jaxbptt import adjoints
    >>> Row("full()", adjoints.full(), bytes=2**20, extra_steps=0).bytes
    1048576
    """

    name: str
    adjoint: Adjoint
    bytes: int
    extra_steps: int


class Plan(NamedTuple):
    """The adjoints that were asked about, in that order, and the bytes there are. ``str`` makes a table of it.

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
        """The first row with the fewest extra steps among those that fit; ``None`` when nothing does."""
        fitting = [row for row in self.rows if self.fits is None or row.bytes <= self.fits]
        return min(fitting, key=lambda row: row.extra_steps, default=None)

    def __str__(self):
        width = max(len(row.name) for row in self.rows)
        lines = [f"{'adjoint':{width}}  {'MiB':>10}  {'extra steps':>12}" + ("" if self.fits is None else "  fits")]
        for row in self.rows:
            fits = "" if self.fits is None else f"  {'yes' if row.bytes <= self.fits else 'no'}"
            lines.append(f"{row.name:{width}}  {row.bytes / 2**20:10.1f}  {row.extra_steps:12d}{fits}")
        return "\n".join(lines)


def plan(
    target: Cell | Model,
    theta: PyTree,
    xs: PyTree,
    h_0: PyTree | None = None,
    *,
    adjoints: Mapping[str, Adjoint] | None = None,
    reads: Literal["outputs", "last"] = "outputs",
    fits: int | None = None,
) -> Plan:
    """Predicts the memory of a gradient with respect to `theta`, and the steps run again for it, adjoint by adjoint.

    The gradient is traced for each adjoint, by shape, and its program walked with a tally of the arrays alive; nothing
    is compiled or computed. Counted is whatever it holds beside its arguments (`theta`, `xs`, `h_0`) and its results:
    states and gates kept, outputs and their cotangents, what one block needs. Not counted are what the compiler and
    the allocator add, the forward pass of your own loss beyond a sum of squares, and the cotangent of `xs`, if you
    ask for it: as large as `xs`; nor what ``full(memory="host")`` keeps there.

    Held against ``compiled.memory_analysis().temp_size_in_bytes`` on the CPU, in the tests and in sweeps of shapes, it
    is within 15% for `autodiff`, `full` (in one block or in several, overlapping or not), `tangent`, `checkpointed`
    (either residuals) and `parallel`, of the built-in cells, `masked` ones, a dense step of yours, and models with
    `readouts.linear`, down to a batch of one. It is not

    * where less than some 100 KiB are held, or T is below some 50: mostly within 25%, at worst 50% too high;
    * for the GRU's `full` of a few members in one block, where d is many times n or θ_h larger than what is held, and
      its ``residuals="states"`` there: up to 26% too low;
    * for a model with one output, in blocks that overlap or for one member: up to 25% too low;
    * for `stacked` cells: mostly 10%, at worst 18% off; for `masked` ones of two members by `checkpointed` with a
      readout 23% too high; for ``residuals="states"`` of an LSTM of a few steps 21% too low;
    * for `tangent` of a few steps of a batch, where W_h is larger than all states: up to 22% too high with jaxlib 0.10;
    * for `parallel` of the linear cell, whose c_t are all the same: 20% too high;
    * for other steps of yours: with a loop inside, a normalisation or random numbers it was up to 36% too high and up
      to 23% too low;
    * for bfloat16, which a CPU widens: where all is in it, up to 52% is missed (`autodiff`,
      `checkpointed`), or 30% (`full`); in mixed precision some 20% off either way, `autodiff` up to 46% too low;
      for float16 up to 38% too low.

    Other backends plan memory their own way: compiled for an H100, `full` of a GRU or LSTM needs 9% to 34% less than is
    said here, `tangent` up to 23% less, and `checkpointed` up to 16% more, Elman up to 48%.

    Args:
        target: a `Cell` or a `Model`.
        theta: the parameters, as ``target.init`` makes them; here and below arrays or ``jax.ShapeDtypeStruct``.
        xs: the inputs, leaves ``[T, *batch, …]``.
        h_0: the initial state; that of the cell for the batch of `xs` when ``None``.
        adjoints: what to compare, by name. ``None`` is `full`, with gates and with states, and `checkpointed` at
            several numbers of slots, the largest first.
        reads: what the loss sees: all ``"outputs"`` (of the cell, or ŷ of the model), or the ``"last"`` state alone.
        fits: bytes that there are; says which rows fit, and `Plan.best` which of these to take.

    Returns:
        A `Plan`.

    Raises:
        TypeError, ValueError: for what is neither a cell nor a model, no adjoint, other `reads`, `fits` that is no
            positive integer, and shapes that don't go together.

    >>> import jax, jax.numpy as jnp, jaxbptt as jb
    >>> cell = jb.cells.lstm()
    >>> theta_h = jax.eval_shape(lambda: cell.init(jax.random.key(0), input_size=16, hidden_size=64))
    >>> xs = jax.ShapeDtypeStruct((100_000, 32, 16), jnp.float32)
    >>> answer = plan(cell, theta_h, xs, reads="last", fits=2**30)
    >>> answer.rows[0].bytes > 2**30, answer.best.name, answer.best.bytes < 2**30
    (True, 'checkpointed(slots=20000)', True)
    """
    if not isinstance(target, Model):
        arguments.cells("target", (target,))
    arguments.one_of("reads", reads, ("outputs", "last"), "say what your loss sees of the recursion")
    if fits is not None:
        arguments.count("fits", fits)
    cell = target.cell if isinstance(target, Model) else target
    if isinstance(target, Model):
        trees.theta(theta)
    theta, xs, h_0 = jax.tree.map(_shape, (theta, xs, h_0))
    T = _axes.time_axis("xs", xs)
    theta_h = theta.h if isinstance(target, Model) else theta
    if h_0 is None:
        batch = _axes.batch_shape_of(cell, theta_h, xs)
        h_0 = jax.eval_shape(lambda theta_h: cell.initial_state(theta_h, batch), theta_h)
    rows = []
    asked = _ladder(T) if adjoints is None else adjoints
    _named_adjoints(asked)
    for name, adjoint in asked.items():
        gradient = jax.grad(_loss(target, cell, adjoint, reads), allow_int=True)
        bytes_ = _live_bytes.peak(jax.make_jaxpr(gradient)(theta, xs, h_0))
        again = 0
        if isinstance(adjoint, Checkpointed):
            again = _revolve.schedule(*_rows.terms(adjoint, cell, theta_h, xs, h_0)).extra_steps
        rows.append(Row(name, adjoint, bytes_, again))
    return Plan(tuple(rows), fits)


def _shape(leaf):
    is_weak = getattr(leaf, "weak_type", False)
    return jax.ShapeDtypeStruct(jnp.shape(leaf), cotangents.dtype_of(leaf), weak_type=is_weak)


def _ladder(T):
    """From the fastest to the smallest."""
    slots = {max(1, T // share) for share in (2, 5, 10, 20, 50)} | {
        max(1, _revolve.two_level_slots(T) // k) for k in (1, 4)
    }
    ladder = {"full()": full(), "full(residuals='states')": full(residuals="states")}
    return ladder | {f"checkpointed(slots={c})": checkpointed(slots=c) for c in sorted(slots, reverse=True)}


def _loss(target, cell, adjoint, reads):
    """The sum of squares of what the loss sees, as a function of theta, xs and h_0."""
    total = jnp.zeros(()).dtype

    def loss(theta, xs, h_0):
        if isinstance(target, Model) and reads == "outputs":
            seen = target.apply(theta, xs, h_0, adjoint=adjoint)
        else:
            theta_h = theta.h if isinstance(target, Model) else theta
            h_T, hs = unroll(cell, theta_h, xs, h_0, adjoint=adjoint)
            seen = hs if reads == "outputs" else h_T
        leaves = [leaf for leaf in jax.tree.leaves(seen) if cotangents.has_derivative(leaf)]
        parts = [part for leaf in leaves for part in ((leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,))]
        return sum((jnp.sum(jnp.square(part), dtype=total) for part in parts), jnp.zeros((), total))

    return loss


def _named_adjoints(adjoints):
    if not isinstance(adjoints, Mapping):
        raise TypeError(
            f"`adjoints` must be a dictionary from names to adjoints: got {type(adjoints).__name__}; "
            'write `{"full": adjoints.full()}`, for one'
        )
    if not adjoints:
        raise ValueError("`adjoints` must have at least one entry: got none; leave it out for the usual ones")
    for value in adjoints.values():
        arguments.adjoint(value)
