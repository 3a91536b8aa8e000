"""What a pullback wants of a step beside its states: computed again from these it is what the step kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import jaxbptt as jb
from jaxbptt.cells._from_split import split_of
from tests import cases
from tests.cases import ADJOINTS, CELLS, CellCase

T, B, d, n = 6, 3, 4, 5


def _singular_apply(theta_h, x_t, h_tm1):
    """Without a derivative at h_t = 0, where a padded sequence is held."""
    return jnp.hypot(x_t @ theta_h["W"].T, h_tm1 @ theta_h["a"].T)


def _singular_vjp(theta_h, x_t, h_tm1, h_t, h_bar_t):
    z, r, bar = x_t @ theta_h["W"].T, h_tm1 @ theta_h["a"].T, h_bar_t / h_t
    W_bar, a_bar = (jnp.einsum("...n,...k->nk", bar * left, right) for left, right in ((z, x_t), (r, h_tm1)))
    return {"W": W_bar, "a": a_bar}, (bar * z) @ theta_h["W"], (bar * r) @ theta_h["a"]


def _singular_init(key, d, n, dtype):
    return {"W": jax.random.normal(key, (n, d), dtype), "a": jax.random.normal(key, (n, n), dtype)}


def _zeros(theta_h, batch):
    return jnp.zeros((*batch, n))


def _of_unit_length(theta_h, x_t, h_tm1):
    return jnp.tanh(h_tm1 @ theta_h + x_t / jnp.linalg.norm(x_t, axis=-1, keepdims=True))


def _held_input(key, shape, d, dtype=jnp.float64):
    """One member is held at h_0 for a step."""
    xs = cases._masked_input(key, shape, d, dtype)
    return xs._replace(mask=xs.mask.at[0, 0].set(False))


elman = jb.cells.elman()
singular = jb.Cell(_singular_init, _zeros, _singular_apply, _singular_vjp, lambda h_t: h_t)
unit = jb.cells.from_step(_of_unit_length, lambda key, d, n, dtype: 0.3 * jnp.eye(n, dtype=dtype), _zeros)
NESTS = [
    CellCase(name, cell, lambda *a: None, inputs=inputs)
    for name, cell, inputs in (
        ("masked, singular", jb.cells.masked(singular), _held_input),
        ("masked, of unit length", jb.cells.masked(jb.cells.stacked(elman, unit)), cases._masked_input),
        ("masked, stacked", jb.cells.masked(jb.cells.stacked(elman, jb.cells.gru())), cases._masked_input),
        ("resettable, by hand", jb.cells.resettable(cases.by_hand), cases._reset_input),
    )
]


def drawn(case):
    """θ_h, xs, h_0, and h_0 … h_{T-1} and h_1 … h_T by the cell itself, step by step."""
    keys = jax.random.split(jax.random.key(0), 3)
    theta_h = case.cell.init(keys[0], d, n, jnp.float64)
    xs = cases.inputs(case, keys[1], (T, B), d)
    hs = [case.cell.initial_state(theta_h, (B,))]
    for t in range(T):
        hs.append(case.cell.apply(theta_h, jax.tree.map(lambda leaf, t=t: leaf[t], xs), hs[-1]))
    return theta_h, xs, hs[0], *(jax.tree.map(lambda *h: jnp.stack(h), *part) for part in (hs[:-1], hs[1:]))


@pytest.mark.parametrize("case", [*CELLS, *NESTS], ids=cases.name)
def test_residuals_are_what_the_step_kept(case):
    """The law that everything here rests on, at padded steps too."""
    theta_h, xs, _, hs_tm1, hs = drawn(case)
    split = split_of(case.cell)
    us = split.project(theta_h, xs)
    found = split.residuals(theta_h, us, hs_tm1, hs)
    for t in range(T):
        u_t, h_tm1, residuals_t = jax.tree.map(lambda leaf, t=t: leaf[t], (us, hs_tm1, found))
        _, wanted = split.step(theta_h, u_t, h_tm1)
        assert jax.tree.structure(residuals_t) == jax.tree.structure(wanted)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13), residuals_t, wanted)


@pytest.mark.parametrize(
    ("case", "name"), cases.in_turn(NESTS, [name for name in ADJOINTS if name != "autodiff"], times=2)
)
def test_their_gradients_are_those_of_autodiff(case, name):
    theta_h, xs, h_0, _, _ = drawn(case)

    def gradient(adjoint):
        def loss(theta_h, h_0):
            h_T, hs = jb.unroll(case.cell, theta_h, xs, h_0, adjoint=adjoint)
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves((h_T, hs)))

        return jax.jit(jax.grad(loss, argnums=(0, 1)))(theta_h, h_0)

    cases.assert_close(gradient(ADJOINTS[name]), gradient(jb.adjoints.autodiff()))


@pytest.mark.parametrize(
    ("cell", "states", "gates"),
    [
        (cases.by_hand, 1, 0),
        (jb.cells.stacked(jb.cells.elman(), jb.cells.elman()), 2, 0),
        (jb.cells.stacked(jb.cells.lstm(), jb.cells.lstm()), 4, 8),
    ],
    ids=["by hand", "stacked elman", "stacked lstm"],
)
def test_memory_is_that_of_the_states_and_of_what_is_computed(cell, states, gates):
    T, B, n = 2000, 8, 64
    theta_h = jax.eval_shape(lambda: cell.init(jax.random.key(0), n, n, jnp.float32))
    h_0 = jax.eval_shape(lambda theta_h: cell.initial_state(theta_h, (B,)), theta_h)
    xs = jax.ShapeDtypeStruct((T, B, n), jnp.float32)

    def loss(theta_h, xs, h_0):
        h_T, _ = jb.unroll(cell, theta_h, xs, h_0, adjoint=jb.adjoints.full(block=20))
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(h_T))

    program = jax.jit(jax.grad(loss)).lower(theta_h, xs, h_0).compile()
    held = program.memory_analysis().temp_size_in_bytes / (T * B * n * 4)
    assert states + gates <= held <= 1.05 * (states + gates) + 0.1  # and a block at work


@pytest.mark.parametrize("name", ["full-blocks", "full-states", "tangent", "checkpointed"])
def test_residuals_with_a_loop_in_a_shard_of_a_batch(name):
    """Which axes of the mesh an array varies over is part of its type; a loop's carry must keep it."""

    def kept(h_tm1, theta_h):
        return jax.vmap(lambda h: jax.lax.fori_loop(0, 2, lambda k, h: theta_h.W_h @ h, h))(h_tm1)

    def without(rule, place):
        """The rule of Elman's own division, which reads no residuals."""
        return lambda *stack: rule(*stack[:place], (), *stack[place + 1 :])

    own = elman.split
    split = own._replace(
        step=lambda theta_h, u_t, h_tm1: (own.step(theta_h, u_t, h_tm1)[0], kept(h_tm1, theta_h)),
        residuals=lambda theta_h, us, hs_tm1, hs: jax.vmap(kept, in_axes=(0, None))(hs_tm1, theta_h),
        step_vjp=without(own.step_vjp, 2),
        param_vjp=without(own.param_vjp, 4),
        input_vjp=without(own.input_vjp, 4),
    )
    cell = elman._replace(split=split)
    theta_h = elman.init(jax.random.key(0), d, n, jnp.float64)
    xs, h_0 = cases.normal(jax.random.key(1), (T, 4, d)), jnp.ones((4, n))

    def loss(theta_h, xs, h_0):
        return jnp.sum(jb.unroll(cell, theta_h, xs, h_0, adjoint=ADJOINTS[name])[0])

    def shard(theta_h, xs, h_0):
        varying = jax.lax.pcast(theta_h, "batch", to="varying")
        return jax.lax.psum(jax.grad(loss)(varying, xs, h_0), "batch")

    mesh = Mesh(np.array(jax.devices()[:2]), ("batch",))
    split_over = jax.shard_map(shard, mesh=mesh, in_specs=(P(), P(None, "batch"), P("batch")), out_specs=P())
    cases.assert_close(jax.jit(split_over)(theta_h, xs, h_0), jax.grad(loss)(theta_h, xs, h_0))
