"""What a pullback wants of each step beside its states, and what of that need not be kept.

`TimeSplit.gates` makes it from θ_h, x_t, h_{t-1} and h_t. Some of it is computed; some is one of these as it stands:
the x_t of a user's step, the output of the layer below that is the input of the layer above. That is there already.
"""

import jax


def made_again(split, theta_h, xs, hs_tm1, hs):
    """All of it, of a stack of steps."""
    return split.gates(theta_h, split.project(theta_h, xs), hs_tm1, hs)


def places(split, theta_h, xs, h_0):
    """For each leaf of the gates, which leaf of ``(xs, hs_tm1, hs)`` it is; ``None`` for what is computed.

    From shapes alone: wherever it is asked, the answer is the same.
    """
    first = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), xs)
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), h_0)
    leaves, structure = jax.tree.flatten((first, state, state))

    def gates(leaves, theta_h):
        return jax.tree.leaves(made_again(split, theta_h, *structure.unflatten(leaves)))

    jaxpr = jax.make_jaxpr(gates)(leaves, theta_h).jaxpr
    given = {id(var): place for place, var in enumerate(jaxpr.invars[: len(leaves)])}
    return [given.get(id(var)) for var in jaxpr.outvars]


def computed(gates, places):
    """The leaves that must be kept."""
    return [leaf for leaf, place in zip(jax.tree.leaves(gates), places, strict=True) if place is None]


def together(split, places, theta_h, xs, hs_tm1, hs, kept):
    """The gates, from what was kept of them and what there is."""
    structure = jax.tree.structure(jax.eval_shape(lambda *a: made_again(split, *a), theta_h, xs, hs_tm1, hs))
    there, kept = jax.tree.leaves((xs, hs_tm1, hs)), iter(kept)
    return structure.unflatten([next(kept) if place is None else there[place] for place in places])
