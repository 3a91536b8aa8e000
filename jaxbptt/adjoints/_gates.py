"""What a pullback wants of each step beside its states, and what of that need not be kept.

`TimeSplit.gates` makes it from θ_h, x_t, h_{t-1} and h_t. Some of it is computed; some is one of these as it stands:
the x_t of a user's step, the output of the layer below that is the input of the layer above. That is there already.
It rests on the law that `gates` gives, leaf by leaf, what `step` gave.
"""

from typing import Any, NamedTuple

import jax

from jaxbptt.adjoints import _errors


class Layout(NamedTuple):
    """What the gates of a cell are made of.

    Attributes:
        structure: of the gates.
        found: for each leaf, which leaf of ``(xs, hs_tm1, hs)`` it is; ``None`` for what is computed.
    """

    structure: Any
    found: tuple[int | None, ...]

    @property
    def computes(self):
        """Whether anything is computed."""
        return None in self.found


def one_step(xs):
    """The shape of the inputs of one step, as a stack of one."""
    return jax.eval_shape(lambda xs: jax.tree.map(lambda leaf: leaf[:1], xs), xs)


def made_again(split, theta_h, xs, hs_tm1, hs):
    """All gates, of a stack of steps."""
    return split.gates(theta_h, split.project(theta_h, xs), hs_tm1, hs)


def layout(split, theta_h, xs, h_0):
    """The `Layout`, from shapes alone: forward pass and pullback ask for themselves, and get the same answer."""
    state = jax.eval_shape(lambda h_0: jax.tree.map(lambda h: h[None], h_0), h_0)
    leaves, structure = jax.tree.flatten((one_step(xs), state, state))

    def both(leaves, theta_h):
        xs, hs_tm1, hs = structure.unflatten(leaves)
        us = split.project(theta_h, xs)
        u_1, h_0 = jax.tree.map(lambda leaf: leaf[0], (us, hs_tm1))
        return split.gates(theta_h, us, hs_tm1, hs), split.step(theta_h, u_1, h_0)[1]

    closed, (gates, gates_of_step) = jax.make_jaxpr(both, return_shape=True)(leaves, theta_h)
    _errors.same_gates(jax.tree.structure(gates_of_step), jax.tree.structure(gates))
    given = {id(var): place for place, var in enumerate(closed.jaxpr.invars[: len(leaves)])}
    made = closed.jaxpr.outvars[: len(jax.tree.leaves(gates))]
    return Layout(jax.tree.structure(gates), tuple(given.get(id(var)) for var in made))


def computed(layout, gates):
    """The leaves that must be kept."""
    return [leaf for leaf, place in zip(jax.tree.leaves(gates), layout.found, strict=True) if place is None]


def together(layout, xs, hs_tm1, hs, kept):
    """The gates, from what was kept of them and what there is."""
    there, kept = jax.tree.leaves((xs, hs_tm1, hs)), iter(kept)
    return layout.structure.unflatten([next(kept) if place is None else there[place] for place in layout.found])
