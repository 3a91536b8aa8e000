"""Hypothesis over sizes, lengths, batch shapes and trees: one adjoint against the other and against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxbptt as jb
from tests.cases import ADJOINTS, CELLS, problem

few = settings(max_examples=12, deadline=None, derandomize=True)
batches = st.lists(st.integers(1, 3), max_size=2).map(tuple)


@few
@given(
    st.sampled_from(CELLS),
    st.sampled_from(sorted(set(ADJOINTS) - {"autodiff"})),
    st.integers(1, 7),
    batches,
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(0, 9),
)
def test_an_adjoint_is_autodiff(case, name, T, batch, d, n, seed):
    instance = problem(case, T=T, batch=batch, d=d, n=n, seed=seed)

    def bars(adjoint):
        F = jb.objective(instance.model, jb.losses.l2_loss, adjoint=adjoint)
        return jax.tree.leaves(
            jax.jit(jax.grad(F, argnums=(0, 3)))(instance.theta, instance.xs, instance.ys, instance.h_0)
        )

    for got, wanted in zip(bars(ADJOINTS[name]), bars(jb.adjoints.autodiff()), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-11)


# A tree is a leaf (None, or an array of some shape), a tuple of trees or a dict of them.
trees = st.recursive(
    st.sampled_from([None, (), (2,), (2, 3)]).map(lambda shape: ("leaf", shape)),
    lambda children: st.one_of(
        st.lists(children, min_size=1, max_size=2).map(lambda c: ("tuple", c)),
        st.lists(children, min_size=1, max_size=2).map(lambda c: ("dict", c)),
    ),
    max_leaves=4,
)


def build(description, key, lead=()):
    kind, content = description
    if kind == "leaf":
        return None if content is None else jax.random.normal(key, (*lead, *content))
    children = [build(child, jax.random.fold_in(key, k), lead) for k, child in enumerate(content)]
    return tuple(children) if kind == "tuple" else {f"child{k}": child for k, child in enumerate(children)}


@few
@given(trees, trees, trees, st.sampled_from(sorted(ADJOINTS)), st.integers(1, 4))
def test_any_trees_of_state_input_and_parameters(state, inputs, parameters, name, T):
    """h ← tanh(w h + Σx + Σθ) leaf by leaf, with one more leaf of each so that there is something to differentiate."""
    keys = jax.random.split(jax.random.key(0), 3)
    h_0 = (build(state, keys[0]), jnp.array(0.3))
    xs = (build(inputs, keys[1], (T,)), jnp.linspace(-1.0, 1.0, T))
    theta_h = (build(parameters, keys[2]), jnp.array(0.7))

    def total(tree):
        return sum((jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(tree)), start=jnp.array(0.0))

    def step(theta_h, x_t, h_tm1):
        drive = total(x_t) + total(theta_h)
        return jax.tree.map(lambda h: jnp.tanh(theta_h[1] * h + jnp.broadcast_to(drive, h.shape)), h_tm1)

    cell = jb.cells.from_step(step, output=total)

    def F(theta_h, xs, h_0, adjoint):
        h_T, hs = jb.unroll(cell, theta_h, xs, h_0, adjoint=adjoint)
        return jnp.sum(hs**2) + total(h_T)

    def loop(theta_h, xs, h_0):
        h, squares = h_0, 0.0
        for t in range(T):
            h = step(theta_h, jax.tree.map(lambda leaf, t=t: leaf[t], xs), h)
            squares = squares + total(h) ** 2
        return squares + total(h)

    wanted = jax.jit(jax.grad(loop, argnums=(0, 1, 2)))(theta_h, xs, h_0)
    got = jax.jit(jax.grad(F, argnums=(0, 1, 2)), static_argnums=3)(theta_h, xs, h_0, ADJOINTS[name])
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
