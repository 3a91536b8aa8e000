"""Blocks in which no member's step is real are not run, and nothing else changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jaxbptt as jb
from jaxbptt._time import blocks
from tests.cases import CELLS, normal, problem

T, LENGTHS = 24, (7, 2, 0)
lengths = jnp.array(LENGTHS)
NAMES = ("gru", "lstm", "from_step", "stacked", "by_hand", "resettable")


FULL = {name: jb.adjoints.full(block=3, residuals=name) for name in ("gates", "states")}


@functools.cache
def given_of(name):
    return problem(next(case for case in CELLS if case.name == name), T=T, batch=(len(LENGTHS),), seed=4)


def close(found, wanted):
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        if left.dtype != jax.dtypes.float0:
            np.testing.assert_allclose(left, right, rtol=1e-11, atol=1e-13)


def read_everywhere(cell, adjoint, theta_h, xs, h_0):
    """All outputs are read, those of padded steps too, where the state stands still."""
    h_T, hs = jb.unroll(cell, theta_h, xs, h_0, adjoint=adjoint)
    outputs = jax.tree.leaves(hs)
    return sum(jnp.sum(jnp.sin(leaf + t)) for t, leaf in enumerate([*outputs, *jax.tree.leaves(h_T)]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["gates", "states"])
def test_the_gradient_is_that_of_all_blocks(name, how):
    given = given_of(name)
    real = jb.sequences.mask(lengths, T)
    masked, xs = jb.cells.masked(given.case.cell), jb.cells.MaskedInput(given.xs, real)
    adjoint = FULL[how]
    assert "cond" in str(
        jax.make_jaxpr(functools.partial(jb.unroll, masked, adjoint=adjoint))(given.theta.h, xs, given.h_0)
    )
    of = [
        jax.value_and_grad(functools.partial(read_everywhere, masked, one), argnums=(0, 1, 2), allow_int=True)
        for one in (adjoint, jb.adjoints.autodiff())
    ]
    close(*(jax.jit(one)(given.theta.h, xs, given.h_0) for one in of))


@pytest.mark.parametrize("name", ["lstm", "from_step"])
def test_second_derivatives_members_and_devices(name):
    given = given_of(name)
    F = [jb.objective(given.model, jb.losses.l2_loss, adjoint=one) for one in (FULL["gates"], jb.adjoints.autodiff())]

    def length(F, theta):
        bar = jax.grad(F)(theta, given.xs, given.ys, given.h_0, lengths=lengths)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(bar))

    close(*(jax.grad(functools.partial(length, one))(given.theta) for one in F))

    def of_a_member(F, xs, ys, h_0, length):
        return jax.grad(F)(given.theta, xs, ys, h_0, lengths=length)

    each = [jax.vmap(functools.partial(of_a_member, one), (1, 1, 0, 0)) for one in F]
    close(*(one(given.xs, given.ys, given.h_0, lengths) for one in each))
    doubled = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf], 1), (given.xs, given.ys))
    h_0 = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), given.h_0)
    split = jax.grad(jb.data_parallel(F[0]))(given.theta, *doubled, h_0, lengths=jnp.concatenate([lengths, lengths]))
    close(split, jax.grad(F[1])(given.theta, given.xs, given.ys, given.h_0, lengths=lengths))


def test_in_a_shard_map_each_device_asks_for_itself():
    given = given_of("gru")
    F = jb.objective(given.model, jb.losses.l2_loss, reduction="sum", adjoint=FULL["gates"])
    xs, ys, h_0 = (jnp.concatenate([leaf, leaf], axis) for leaf, axis in ((given.xs, 1), (given.ys, 1), (given.h_0, 0)))
    both = jnp.concatenate([lengths, 0 * lengths])
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def local(theta, xs, ys, h_0, lengths):
        return jax.lax.psum(F(theta, xs, ys, h_0, lengths=lengths), "data")

    specs = P(), P(None, "data"), P(None, "data"), P("data"), P("data")
    split = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P())
    wanted = jax.grad(F)(given.theta, given.xs, given.ys, given.h_0, lengths=lengths)
    close(jax.jit(jax.grad(split))(given.theta, xs, ys, h_0, both), wanted)


def test_no_step_of_such_a_block_is_taken():
    taken = []

    def step(theta_h, x_t, h_tm1):
        jax.debug.callback(lambda: taken.append(1))
        return jnp.tanh(theta_h * h_tm1 + x_t)

    def at_rest(theta_h, batch_shape=()):
        return jnp.zeros((*batch_shape, 2))

    cell = jb.cells.from_step(step, initial_state=at_rest)
    model, theta = jb.rnn(cell, jb.readouts.identity()), jb.Theta(jnp.ones(()), ())
    F = jax.jit(jb.objective(model, jb.losses.l2_loss, adjoint=FULL["gates"]))
    xs, counts = normal(jax.random.key(0), (T, 2, 2)), []
    for longest in (T, 1):
        taken.clear()
        F(theta, xs, xs, lengths=jnp.array([longest, 1])).block_until_ready()
        jax.effects_barrier()
        counts.append(len(taken))
    assert counts[0] >= T
    assert counts[1] <= counts[0] / 8


@pytest.mark.parametrize(("T", "wanted"), [(1000, 10), (256, 16), (8 * 13, 13), (97, 97), (7, 7), (8, 8)])
def test_a_ragged_batch_has_eight_blocks_that_divide_T_or_one(T, wanted):
    """64 KiB a step: 16 steps are as much as a block may have, 2 as little."""
    step = (jnp.zeros(4 * 4096, jnp.float32), (), ())
    assert blocks.choose(step, (), T, ragged=True) == wanted
    assert blocks.choose((jnp.zeros(4), (), ()), (), T, ragged=True) == T  # too small to ask
