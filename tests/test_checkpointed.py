"""Checkpointed backpropagation gives the exact gradient, in steps and in blocks, the last of them padded."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt.adjoints.checkpointed import checkpointed
from tests import cases
from tests.cases import CELLS, assert_close, oracle, problem

ELMAN, GRU, LSTM = (next(case for case in CELLS if case.name == name) for name in ("elman-tanh", "gru", "lstm"))
USER = next(case for case in CELLS if case.name == "from_step")

SOME = [(1, 1, None), (2, 1, 1), (13, 3, 2), (12, 40, 5), (13, 13, 5), (10, 4, 4)]  # half of them with a rest


def gradient(given, adjoint):
    """F and ∂F/∂(θ, xs, h_0); flags in xs get None."""
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint)
    run = jax.jit(jax.value_and_grad(F, argnums=(0, 1, 3), allow_int=True))
    value, bars = run(given.theta, given.xs, given.ys, given.h_0)
    return value, jax.tree.map(lambda bar: None if bar.dtype == jax.dtypes.float0 else bar, bars)


@pytest.mark.parametrize(("case", "choice"), cases.in_turn(CELLS, SOME, times=2))
def test_it_gives_the_gradient(case, choice):
    T, slots, block = choice
    given = problem(case, T=T, batch=(2,), seed=T + 1)
    value, bars = gradient(given, checkpointed(slots, block=block))
    wanted_value, wanted = oracle(given)
    np.testing.assert_allclose(value, wanted_value, rtol=1e-12)
    for bar, wanted_bar in zip(jax.tree.leaves(bars), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(bar, wanted_bar, rtol=1e-10, atol=1e-12)
    if T > 2 and not case.inputs:  # a flag can hide a leaf
        assert all(np.any(np.asarray(bar)) for bar in jax.tree.leaves(bars))


OPTIONS = [
    {}, {"fraction": 0.3}, {"budget": 3000}, {"slots": 3, "residuals": "states"}, {"slots": 5, "block": 5},
    {"slots": 1, "residuals": "states"}, {"slots": 4, "block": 1},
]  # fmt: skip


@pytest.mark.parametrize(("case", "options"), cases.in_turn([LSTM, USER], OPTIONS))
def test_every_way_to_say_how_much(case, options):
    given = problem(case, T=13, batch=(), seed=3)
    wanted_value, wanted = oracle(given)
    value, bars = gradient(given, checkpointed(**options))
    np.testing.assert_allclose(value, wanted_value, rtol=1e-12)
    assert_close(bars, wanted, 1e-10)


def test_several_batch_axes():
    given = problem(LSTM, T=7, batch=(2, 3), seed=4)
    assert_close(gradient(given, checkpointed(3, block=2))[1], gradient(given, jb.adjoints.autodiff())[1], 1e-11)


def test_the_last_state_has_a_cotangent_too():
    given = problem(LSTM, T=9)

    def loss(theta_h, h_0, adjoint, both):
        h_T, hs = jb.unroll(given.case.cell, theta_h, given.xs, h_0, adjoint=adjoint)
        return jnp.sum(jnp.sin(h_T.c)) + jnp.sum(h_T.h**2) + (jnp.sum(jnp.cos(hs)) if both else 0.0)

    for both in (True, False):
        got, wanted = (
            jax.jit(jax.grad(functools.partial(loss, adjoint=adjoint, both=both), argnums=(0, 1)))(
                given.theta.h, given.h_0
            )
            for adjoint in (checkpointed(3, block=2), jb.adjoints.autodiff())
        )
        assert_close(got, wanted, 1e-11)


@pytest.mark.parametrize("argnum", [0, 1, 3])
def test_a_gradient_of_a_part_is_a_part_of_the_gradient(argnum):
    given = problem(GRU, T=5)
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=checkpointed(3, block=2))
    part = jax.jit(jax.grad(F, argnums=argnum))(given.theta, given.xs, given.ys, given.h_0)
    assert_close(part, oracle(given)[1][(0, 1, 3).index(argnum)], 1e-11)


def products(given, argnum):
    """In what is compiled: what nobody asked for is traced, and then let go."""
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=checkpointed(3, block=3))
    program = jax.jit(jax.grad(F, argnums=argnum)).lower(given.theta, given.xs, given.ys, given.h_0).compile()
    return program.as_text().count(" dot(")


def test_a_part_costs_less():
    """θ alone does without the product for ∂F/∂x, and h_0 alone without those for ∂F/∂W_x and ∂F/∂W_h."""
    given = problem(GRU, T=9)
    everything = products(given, (0, 1, 3))
    assert products(given, 0) == everything - 1
    assert products(given, 3) <= everything - 3


def test_jit_vmap_and_remat():
    several = [problem(LSTM, T=7, seed=seed) for seed in range(3)]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[(p.theta, p.xs, p.ys, p.h_0) for p in several])
    F = jb.objective(several[0].model, jb.losses.l2_loss, adjoint=checkpointed(2, block=2))  # 7 = 4 · 2 - 1
    mapped = jax.jit(jax.vmap(jax.grad(F)))(*stack)
    remat = jax.jit(jax.grad(jax.checkpoint(F)))
    for k, given in enumerate(several):
        alone = remat(given.theta, given.xs, given.ys, given.h_0)
        assert_close(jax.tree.map(lambda leaf, k=k: leaf[k], mapped), alone, 1e-11)
        assert_close(alone, oracle(given)[1][0], 1e-11)


def test_a_mask_lets_no_padding_through():
    given = problem(GRU, T=5, batch=(2,), seed=5)
    mask = np.array([[1, 0], [0, 1], [1, 1], [0, 1], [0, 0]], bool)
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=checkpointed(2, block=2))  # 5 = 3 · 2 - 1
    xs = given.xs.at[4].set(jnp.nan).at[3, 0].set(jnp.nan)
    ys = jnp.where(mask[..., None], given.ys, jnp.nan)
    masks = {"mask": jnp.asarray(mask), "lengths": jnp.array([3, 4])}  # what is NaN in xs is no real step
    bars = jax.jit(jax.grad(F))(given.theta, xs, ys, given.h_0, **masks)
    assert_close(bars, oracle(given, mask)[1][0], 1e-11)


def test_second_derivatives_forward_over_reverse():
    given = problem(GRU, T=5, n=3)
    v = cases.randomised(given.theta.h, jax.random.key(9), 1.0)

    def hvp(adjoint):
        def loss(theta_h):
            return jnp.sum(jb.unroll(given.case.cell, theta_h, given.xs, given.h_0, adjoint=adjoint)[1] ** 3)

        return jax.jit(lambda theta_h: jax.jvp(jax.grad(loss), (theta_h,), (v,))[1])(given.theta.h)

    wanted = hvp(jb.adjoints.autodiff())
    for adjoint in (checkpointed(2), checkpointed(2, block=2)):  # in steps, and in blocks with a rest
        assert_close(hvp(adjoint), wanted, 1e-10)


def test_what_it_cannot_do_raises():
    given = problem(GRU, T=5)
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=checkpointed(2))

    def of(theta):
        return F(theta, given.xs, given.ys, given.h_0)

    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(of, (given.theta,), (given.theta,))
    with pytest.raises(ValueError, match="Reverse-mode differentiation"):
        jax.eval_shape(jax.grad(lambda theta: jnp.sum(jax.grad(of)(theta).h.W_h)), given.theta)


@pytest.mark.parametrize(("case", "dtype"), cases.in_turn([ELMAN, GRU, LSTM], [jnp.float32, jnp.bfloat16]))
def test_dtypes_are_kept(case, dtype):
    given = problem(case, T=9, dtype=dtype)
    value, bars = gradient(given, checkpointed(3, block=2))
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves((value, bars)))
    same = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (given.theta, given.xs, given.ys, given.h_0))
    wide = given._replace(theta=same[0], xs=same[1], ys=same[2], h_0=same[3])
    got = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), bars)
    assert_close(got, oracle(wide)[1], 1e-5 if dtype == jnp.float32 else 0.1)


def test_half_precision_sums_in_single_over_blocks():
    """A thousand parts of one half, summed a block at a time: bfloat16 would stop at 256."""
    theta_h = jb.cells.LinearParams(W_x=jnp.ones((1, 1), jnp.bfloat16), W_h=jnp.zeros((1, 1), jnp.bfloat16))
    xs = jnp.full((1000, 1, 1), 0.5, jnp.bfloat16)

    def loss(theta_h):
        _, hs = jb.unroll(jb.cells.linear(), theta_h, xs, jnp.zeros((1, 1), jnp.bfloat16), adjoint=checkpointed(20))
        return jnp.sum(hs, dtype=jnp.float32)

    assert jax.grad(loss)(theta_h).W_x.item() == 500
