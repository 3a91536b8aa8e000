"""The schedule of checkpointed backpropagation: its steps are the fewest, each reversed once from its own state."""

import functools
import itertools
import math

import numpy as np
import pytest

from jaxbptt.adjoints.checkpointed import revolve


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


def advanced(T, slots, block=1, residuals=False):
    """Steps advanced over: one pass, which does not need the last step, and those run again."""
    return T - 1 + revolve.schedule(T, slots, block, residuals).extra_steps


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
        for block, residuals in itertools.product(range(1, min(slots, T, 12) + 1), (False, True)):
            formula = revolve._fewest(T, min(slots, T), block, residuals)
            counted = revolve.schedule(T, min(slots, T), block, residuals).extra_steps
            exact = block == 1 and not residuals
            assert formula == counted if exact else formula <= counted, (T, slots, block, residuals)
            if slots >= T:  # nothing is run again but the padding
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
@pytest.mark.parametrize("residuals", [False, True])
def test_blocks_are_within_some_per_cent_of_the_best(block, residuals):
    stop_short = block == 1 and not residuals
    slack = []
    for units in range(1, 33):
        for slots in (block, block + 1, 2 * block + 1, 4 * block + 1, 7 * block):
            plan = revolve.schedule(units * block, min(slots, units * block), block, residuals)
            again = plan.extra_steps / block + units - stop_short
            best = fewest(units, min(slots + 1, units * block), block, stop_short)
            assert again >= best
            slack.append(again / max(best, 1))
    assert max(slack) <= (1.0 if stop_short else 1.1)
    assert np.mean(slack) <= 1.01


def replay(T, slots, block, residuals):
    """Runs a schedule on step numbers for states: every step reversed once, last first, each state the right one."""
    plan = revolve.schedule(T, slots, block, residuals)
    K, units = plan.block, len(plan.sweep_rows)
    padding = units * K - T
    assert block >= K
    assert 0 <= padding < K
    rows, ran, reversed_ = [None] * plan.rows, 0, []
    for unit, row in enumerate(plan.sweep_rows):
        for k in range(K):
            assert row + k < plan.rows
            rows[row + k] = unit * K + k
    for numbers in plan.instructions:
        do = revolve.Instruction(*map(int, numbers))
        h = rows[do.load]
        for i in range(do.advance):
            assert h == (do.unit + i) * K
            first = do.load + (i * K if do.dense else 1)
            assert first + K <= plan.rows
            rows[first : first + K] = range(h, h + K)
            h, ran = h + K, ran + K
        if do.store >= 0:
            rows[do.store] = h
        for unit in reversed(range(do.reverse)):
            for k in reversed(range(K)):
                step = rows[do.load + unit * K + k]
                assert step == (do.unit + unit) * K + k
                reversed_.append(step)
    assert reversed_ == list(range(T + padding))[::-1]
    assert plan.extra_steps == ran + padding
    assert plan.rows <= (slots + 1 if slots < T else T + padding)
    if slots >= T:
        assert plan.extra_steps == padding


@pytest.mark.parametrize("residuals", [False, True])
def test_every_step_is_reversed_once_from_its_own_state(residuals):
    for T in (1, 2, 3, 7, 12, 31, 100):
        for slots in (1, 2, 3, 5, 9, 30, 100):
            for block in {1, 2, 3, 8, slots}:
                if block <= min(slots, T):
                    replay(T, min(slots, T), block, residuals)


def test_the_chosen_block_is_one_of_little_cost():
    """Larger for a small batch, where the sums Σ b_tᵀ delta_t weigh more; a third of the slots at most."""
    choose = functools.partial(revolve.choose_block, 1000, 100, True)
    assert [choose(batch) for batch in (1, 64, 10_000)] == sorted((choose(b) for b in (1, 64, 10_000)), reverse=True)
    assert choose(1) > choose(10_000)
    for T, slots in [(1000, 50), (1000, 10), (7, 2), (100_000, 448)]:
        for batch in (1, 32, 512):
            block = revolve.choose_block(T, slots, True, batch)
            assert 1 <= block <= max(1, min(32, slots // 3))
            # no other block is cheaper, with the steps counted by a schedule and not by the formula
            costs = {
                k: revolve.schedule(T, slots, k, True).extra_steps / T + (0.1 + 60 / batch) / k
                for k in range(1, max(1, min(32, slots // 3)) + 1)
            }
            if T <= 1000:
                assert costs[block] <= 1.05 * min(costs.values()) + 0.03
