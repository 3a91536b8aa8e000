"""Checkpointed backpropagation: the schedule is the optimal one, the gradient the exact one, the memory bounded."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt.adjoints import _revolve, _rows
from jaxbptt.adjoints.checkpointed import checkpointed
from tests import cases
from tests.cases import CELLS, assert_close, oracle, problem
from tests.test_jaxpr import equations

ELMAN, GRU, LSTM = (next(case for case in CELLS if case.name == name) for name in ("elman-tanh", "gru", "lstm"))
USER = next(case for case in CELLS if case.name == "from_step")


def gradient(given, adjoint):
    """F and ∂F/∂(θ, xs, h_0); flags in xs get None."""
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint)
    run = jax.jit(jax.value_and_grad(F, argnums=(0, 1, 3), allow_int=True))
    value, bars = run(given.theta, given.xs, given.ys, given.h_0)
    return value, jax.tree.map(lambda bar: None if bar.dtype == jax.dtypes.float0 else bar, bars)


# The schedule


def griewank(T, c):
    """Steps advanced over, as the paper's formula has them."""
    r = next(r for r in range(T) if math.comb(c + r, c) >= T)
    return r * T - math.comb(c + r, c + 1)


def gruslys(T, slots):
    """The dynamic programme, by plain loops: its C(t, m) for every t ≤ T and m ≤ slots."""
    C = {(t, 1): t * (t + 1) // 2 for t in range(1, T + 1)} | {(1, m): 1 for m in range(1, slots + 1)}
    for m in range(2, slots + 1):
        for t in range(2, T + 1):
            C[t, m] = min(y + C[t - y, m - 1] + C[y, m] for y in range(1, t))
    return C


def advanced(T, slots, block=1, gates=False):
    """Steps advanced over: one pass, which does not need the last step, and those run again."""
    return T - 1 + _revolve.schedule(T, slots, block, gates).extra_steps


@pytest.mark.parametrize(("slots", "steps"), [(10, 3636), (30, 2472), (50, 1948), (100, 1898)])
def test_the_known_counts(slots, steps):
    assert advanced(1000, slots) == griewank(1000, slots) == steps


def test_step_counts_are_the_formula_and_the_dynamic_programme():
    C = gruslys(40, 12)
    for T in range(1, 41):
        for slots in range(1, 13):
            assert advanced(T, slots) == C[T, slots] - T, (T, slots)
            if slots < T:
                assert advanced(T, slots) == griewank(T, slots)
    for T, slots in [(100, 1), (997, 3), (5000, 17), (20_000, 200)]:
        assert advanced(T, slots) == griewank(T, slots)


def test_the_formula_is_what_a_schedule_counts_or_below_it():
    """It chooses the block; the schedule is its slow twin."""
    for T, slots in itertools.product((1, 2, 7, 40, 100, 333), (1, 2, 3, 10, 50, 400)):
        for block, gates in itertools.product(range(1, min(slots, T, 12) + 1), (False, True)):
            formula = _revolve._fewest(T, min(slots, T), block, gates)
            counted = _revolve.schedule(T, min(slots, T), block, gates).extra_steps
            assert formula == counted if block == 1 and not gates else formula <= counted, (T, slots, block, gates)
            if slots >= T:  # nothing is run again but what two units share
                assert formula == counted < block


@functools.cache
def fewest(units, rows, block, stop_short):
    """By brute force over every place to split: the fewest units to run through, the module's own problem."""
    best = math.inf
    if units * block <= rows:
        best = units - stop_short
    for y in range(1, units) if rows > block else ():
        best = min(best, y + fewest(units - y, rows - 1, block, stop_short) + fewest(y, rows, block, stop_short))
    return best


@pytest.mark.parametrize("block", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("gates", [False, True])
def test_blocks_are_within_some_per_cent_of_the_best(block, gates):
    stop_short = block == 1 and not gates
    slack = []
    for units in range(1, 33):
        for slots in (block, block + 1, 2 * block + 1, 4 * block + 1, 7 * block):
            plan = _revolve.schedule(units * block, min(slots, units * block), block, gates)
            again = plan.extra_steps / block + units - stop_short
            best = fewest(units, min(slots + 1, units * block), block, stop_short)
            assert again >= best
            slack.append(again / max(best, 1))
    assert max(slack) <= (1.0 if stop_short else 1.1)
    assert np.mean(slack) <= 1.01


def replay(T, slots, block, gates):
    """Runs a schedule on step numbers for states: every step reversed once, last first, each state the right one."""
    plan = _revolve.schedule(T, slots, block, gates)
    K, units = plan.block, len(plan.sweep_rows)
    assert block >= K
    assert 0 <= plan.overlap == units * K - T < K
    starts = [min(unit * K, T - K) for unit in range(units)]
    rows, ran, reversed_ = [None] * plan.rows, 0, []
    for start, row in zip(starts, plan.sweep_rows, strict=True):
        for k in range(K):
            assert row + k < plan.rows
            rows[row + k] = start + k
    for numbers in plan.instructions:
        do = _revolve.Instruction(*map(int, numbers))
        h = rows[do.load]
        for i in range(do.advance):
            assert h == starts[do.unit + i]
            first = do.load + (i * K if do.dense else 1)
            assert first + K <= plan.rows
            rows[first : first + K] = range(h, h + K)
            h, ran = h + K, ran + K
        if do.store >= 0:
            rows[do.store] = h
        for unit in reversed(range(do.reverse)):
            for k in reversed(range(K)):
                step = rows[do.load + unit * K + k]
                assert step == starts[do.unit + unit] + k
                if step >= (do.unit + unit) * K:  # the steps before are those of the unit ahead
                    reversed_.append(step)
    assert reversed_ == list(range(T))[::-1]
    assert plan.extra_steps == ran + plan.overlap
    assert plan.rows <= (slots + 1 if slots < T else T + plan.overlap)
    if slots >= T:
        assert plan.extra_steps == plan.overlap


@pytest.mark.parametrize("gates", [False, True])
def test_every_step_is_reversed_once_from_its_own_state(gates):
    for T in (1, 2, 3, 7, 12, 31, 100):
        for slots in (1, 2, 3, 5, 9, 30, 100):
            for block in {1, 2, 3, 8, slots}:
                if block <= min(slots, T):
                    replay(T, min(slots, T), block, gates)


# The gradient

SOME = [(1, 1, None), (2, 1, 1), (13, 3, 2), (12, 40, 5), (13, 13, 5), (10, 4, 4)]  # the last two share 2 steps


@pytest.mark.parametrize("case", CELLS, ids=cases.name)
@pytest.mark.parametrize(("T", "slots", "block"), SOME, ids=str)
def test_it_gives_the_gradient(case, T, slots, block):
    given = problem(case, T=T, batch=(2,), seed=T)
    value, bars = gradient(given, checkpointed(slots, block=block))
    wanted_value, wanted = oracle(given)
    np.testing.assert_allclose(value, wanted_value, rtol=1e-12)
    for bar, wanted_bar in zip(jax.tree.leaves(bars), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(bar, wanted_bar, rtol=1e-10, atol=1e-12)
    if T > 2 and case.name not in ("masked", "resettable"):  # a flag can hide a leaf
        assert all(np.any(np.asarray(bar)) for bar in jax.tree.leaves(bars))


@pytest.mark.parametrize("case", [LSTM, USER], ids=cases.name)
@pytest.mark.parametrize("options", [
    {}, {"fraction": 0.3}, {"budget": 3000}, {"slots": 3, "residuals": "states"}, {"slots": 5, "block": 5},
    {"slots": 1, "residuals": "states"}, {"slots": 4, "block": 1},
], ids=str)  # fmt: skip
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
    given = problem(GRU, T=8)
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=checkpointed(3, block=2))
    part = jax.jit(jax.grad(F, argnums=argnum))(given.theta, given.xs, given.ys, given.h_0)
    assert_close(part, oracle(given)[1][(0, 1, 3).index(argnum)], 1e-11)


def products(given, argnum):
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=checkpointed(3, block=3))
    jaxpr = jax.make_jaxpr(jax.grad(F, argnums=argnum))(given.theta, given.xs, given.ys, given.h_0)
    return sum(equation.primitive.name == "dot_general" for equation in equations(jaxpr.jaxpr))


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
    bars = jax.jit(jax.grad(F))(given.theta, xs, ys, given.h_0, jnp.asarray(mask))
    assert_close(bars, oracle(given, mask)[1][0], 1e-11)


def test_second_derivatives_forward_over_reverse():
    given = problem(GRU, T=5, n=3)
    v = cases.randomised(given.theta.h, jax.random.key(9), 1.0)

    def hvp(adjoint):
        def loss(theta_h):
            return jnp.sum(jb.unroll(given.case.cell, theta_h, given.xs, given.h_0, adjoint=adjoint)[1] ** 3)

        return jax.jit(lambda theta_h: jax.jvp(jax.grad(loss), (theta_h,), (v,))[1])(given.theta.h)

    wanted = hvp(jb.adjoints.autodiff())
    for adjoint in (checkpointed(2), checkpointed(2, block=2)):  # in steps, and in blocks that overlap
        assert_close(hvp(adjoint), wanted, 1e-10)


def test_what_it_cannot_do_raises():
    given = problem(GRU, T=5)
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=checkpointed(2))

    def of(theta):
        return F(theta, given.xs, given.ys, given.h_0)

    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(of, (given.theta,), (given.theta,))
    with pytest.raises(ValueError, match="Reverse-mode differentiation"):
        jax.grad(lambda theta: jnp.sum(jax.grad(of)(theta).h.W_h))(given.theta)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("case", [ELMAN, GRU, LSTM], ids=cases.name)
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


# The program


def test_the_chosen_block_is_one_of_little_cost():
    """Larger for a small batch, where the sums Σ b_tᵀ delta_t weigh more; a third of the slots at most."""
    choose = functools.partial(_revolve.choose_block, 1000, 100, True)
    assert [choose(batch) for batch in (1, 64, 10_000)] == sorted((choose(b) for b in (1, 64, 10_000)), reverse=True)
    assert choose(1) > choose(10_000)
    for T, slots in [(1000, 50), (1000, 10), (7, 2), (100_000, 448)]:
        for batch in (1, 32, 512):
            block = _revolve.choose_block(T, slots, True, batch)
            assert 1 <= block <= max(1, min(32, slots // 3))
            # no other block is cheaper, with the steps counted by a schedule and not by the formula
            costs = {
                k: _revolve.schedule(T, slots, k, True).extra_steps / T + (0.1 + 60 / batch) / k
                for k in range(1, max(1, min(32, slots // 3)) + 1)
            }
            if T <= 1000:
                assert costs[block] <= 1.05 * min(costs.values()) + 0.03


def test_the_batch_of_a_state_decides_not_its_shape():
    """A matrix for each of two members is a batch of two."""
    blocks = []
    for B in (2, 400):
        cell = jb.cells.from_step(
            lambda theta_h, x_t, h_tm1: jnp.tanh(h_tm1 @ theta_h + x_t),
            initial_state=lambda theta_h, batch_shape=(): jnp.zeros((*batch_shape, *theta_h.shape)),
        )
        h_0, xs = jnp.zeros((B, 4, 4)), jax.ShapeDtypeStruct((1000, B, 4, 4), jnp.float64)
        blocks.append(_rows.terms(checkpointed(100), cell, jnp.eye(4), xs, h_0).block)
    assert blocks == [_revolve.choose_block(1000, 100, True, B) for B in (2, 400)]
    assert blocks[0] > blocks[1]


def traced_size(T, **options):
    given = problem(LSTM, T=T)
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=checkpointed(**options))
    jaxpr = jax.make_jaxpr(jax.grad(F, argnums=(0, 1, 3)))(given.theta, given.xs, given.ys, given.h_0)
    return len(list(equations(jaxpr.jaxpr)))


@pytest.mark.parametrize("options", [{"slots": 5, "block": 1}, {"slots": 10, "block": 5}], ids=str)
def test_the_program_does_not_grow_with_T(options):
    assert len({traced_size(T, **options) for T in (50, 500, 5000)}) == 1


def test_a_remainder_is_no_second_program():
    """Blocks that don't divide T overlap: some numbers more to look at, nothing run by another piece of program."""
    with_remainder = {traced_size(T, slots=10, block=5) for T in (51, 504, 5003)}
    assert len(with_remainder) == 1
    assert with_remainder.pop() < 1.15 * traced_size(50, slots=10, block=5)


def temporaries(case, adjoint, T, B=4, n=16, d=8):
    given = problem(case, T=T, batch=(B,), n=n, d=d, dtype=jnp.float32)

    def loss(theta_h):
        h_T, _ = jb.unroll(case.cell, theta_h, given.xs, given.h_0, adjoint=adjoint)
        return jnp.sum(jax.tree.leaves(h_T)[0] ** 2)

    return jax.jit(jax.grad(loss)).lower(given.theta.h).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("case", [ELMAN, GRU, LSTM], ids=cases.name)
def test_fifty_slots_of_a_thousand_hold_a_tenth(case):
    assert temporaries(case, checkpointed(50), 1000) <= 0.1 * temporaries(case, jb.adjoints.full(), 1000)


@pytest.mark.parametrize("case", [ELMAN, LSTM], ids=cases.name)
def test_memory_does_not_grow_with_T_but_for_the_schedule(case):
    """The schedule itself is a few integers for each block; states of a loss of h_T are not kept."""
    short, long = (temporaries(case, checkpointed(20, block=10), T) for T in (200, 2000))
    assert long <= 1.05 * short + 4096


def test_nothing_is_made_twice():
    assert checkpointed(3) is checkpointed(slots=3) is checkpointed(3, residuals="gates")
    assert checkpointed() is checkpointed(None)
    assert checkpointed(3) != checkpointed(4)
    traces = []

    def step(theta_h, x_t, h_tm1):
        traces.append(1)
        return jnp.tanh(h_tm1 * theta_h + x_t)

    cell = jb.cells.from_step(step)

    @jax.jit
    def run(theta_h, xs):
        return jax.grad(lambda theta: jnp.sum(jb.unroll(cell, theta, xs, jnp.zeros(2), adjoint=checkpointed(2))[0]))(
            theta_h
        )

    run(jnp.ones(2), jnp.ones((5, 2)))
    traces.clear()
    run(jnp.ones(2), jnp.zeros((5, 2)))
    assert not traces


# Bad input


@pytest.mark.parametrize(("options", "kind", "match"), [
    ({"slots": 0}, ValueError, "`slots` must be an integer, at least 1: got 0"),
    ({"slots": 2.5}, TypeError, "`slots` must be an integer"),
    ({"budget": -1}, ValueError, "`budget` must be an integer, at least 1: got -1"),
    ({"fraction": 0.0}, ValueError, "`fraction` must be a number with 0 < fraction ≤ 1.*got 0.0"),
    ({"fraction": 1.5}, ValueError, "`fraction` must be a number with 0 < fraction ≤ 1.*got 1.5"),
    ({"fraction": "half"}, TypeError, "`fraction` must be a number.*got 'half'"),
    ({"slots": 3, "budget": 100}, ValueError, "exclude each other: got slots=3, budget=100; give one"),
    ({"block": 0}, ValueError, "`block` must be an integer, at least 1: got 0"),
    ({"residuals": "all"}, ValueError, "`residuals` must be one of 'gates', 'states': got 'all'"),
], ids=str)  # fmt: skip
def test_bad_options_are_refused_at_once(options, kind, match):
    with pytest.raises(kind, match=match):
        checkpointed(**options)


def test_bad_options_that_need_the_shapes():
    given = problem(LSTM, T=9, batch=(2,), n=4)  # a row: (2 + 4) arrays of 2·4 float64, 384 bytes
    run = functools.partial(jb.unroll, given.case.cell, given.theta.h, given.xs, given.h_0)
    with pytest.raises(ValueError, match=r"`budget` must be at least 768 bytes here.*384 bytes each: got 767"):
        run(adjoint=checkpointed(budget=767))
    run(adjoint=checkpointed(budget=768))
    run(adjoint=checkpointed(budget=256, residuals="states"))
    with pytest.raises(ValueError, match=r"`block` must be at most `slots`.*got block=4, slots=3"):
        run(adjoint=checkpointed(3, block=4))
