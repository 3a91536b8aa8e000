"""Pieces of their own lengths: how they are padded and batched, against loops over each of them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from experiments import chorales
from experiments.tasks import music


def test_padding_reaches_neither_F_nor_a_gradient(rolls):
    pieces = rolls.train[:3]
    assert len({len(piece) for piece in pieces}) == 3
    model = jb.rnn(jb.cells.gru(), jb.readouts.linear())
    with jax.enable_x64(True):
        theta = model.init(jax.random.key(0), input_size=88, hidden_size=3, output_size=88, dtype=jnp.float64)
        F = jax.jit(jax.value_and_grad(jb.objective(model, chorales.LOSS)))
        zeros, nans = (
            jax.tree.map(
                lambda leaf: leaf if leaf.dtype == np.int32 else leaf.astype(np.float64),
                music.padded(pieces, fill=fill),
            )
            for fill in (0.0, math.nan)
        )
        assert np.isnan(nans.xs).any()
        value, bars = F(theta, zeros.xs, zeros.ys, lengths=zeros.lengths)
        value_of_nans, bars_of_nans = F(theta, nans.xs, nans.ys, lengths=nans.lengths)

        def by_piece(theta):  # without padding, mask or library
            total, steps = 0.0, 0
            for piece in pieces:
                h = jnp.zeros(3)
                for x, y in zip(piece[:-1].astype(float), piece[1:].astype(float), strict=True):
                    h = model.cell.apply(theta.h, jnp.asarray(x), h)
                    p = 1 / (1 + jnp.exp(-(theta.o.W_o @ h + theta.o.b)))
                    total, steps = total - jnp.sum(y * jnp.log(p) + (1 - y) * jnp.log(1 - p)), steps + 1
            return total / steps

        wanted, wanted_bars = jax.value_and_grad(by_piece)(theta)
    assert value == value_of_nans == pytest.approx(float(wanted), rel=1e-12)
    for bar, bar_of_nans, wanted_bar in zip(*map(jax.tree.leaves, (bars, bars_of_nans, wanted_bars)), strict=True):
        np.testing.assert_array_equal(bar, bar_of_nans)
        np.testing.assert_allclose(bar, wanted_bar, rtol=1e-9, atol=1e-14)
        assert np.any(np.asarray(wanted_bar))


def test_what_is_seen_is_the_step_before_what_is_to_be_predicted(rolls):
    batch = music.padded(rolls.test)
    assert batch.xs.shape[0] % music.PART == 0
    for k, piece in enumerate(rolls.test):
        steps = len(piece) - 1
        assert batch.lengths[k] == steps
        for t in range(steps):
            np.testing.assert_array_equal(batch.xs[t, k], piece[t])
            np.testing.assert_array_equal(batch.ys[t, k], piece[t + 1])
        assert not batch.xs[steps:, k].any()


def test_a_pass_takes_each_piece_at_most_once_in_an_order_of_its_own(rolls):
    found = {piece[:-1].tobytes(): k for k, piece in enumerate(rolls.train)}
    batch = music.batches(rolls.train, 4, (3, 1))

    def taken(k):
        xs, lengths = batch(k).xs, batch(k).lengths
        return [found[xs[: lengths[j], j].tobytes()] for j in range(4)]

    passes = [[taken(4 * e + k) for k in range(4)] for e in range(12)]  # 18 pieces: two are left out
    for one in passes:
        assert len({k for chosen in one for k in chosen}) == 16
    assert len({k for one in passes for chosen in one for k in chosen}) == 18
    assert len({str(one) for one in passes}) == 12
    assert [taken(k) for k in (9, 2, 9)] == [passes[2][1], passes[0][2], passes[2][1]]  # position is the step alone
    other = music.batches(rolls.train, 4, (3, 2))
    assert any(not np.array_equal(other(k).lengths, batch(k).lengths) for k in range(4))


def test_lengths_within_a_batch_are_similar(rolls):
    spans = [np.ptp(music.batches(rolls.train, 6, (0,), spread=0.5)(k).lengths) for k in range(3)]
    lengths = np.sort([len(piece) for piece in rolls.train])
    assert sorted(spans) == sorted(np.ptp(lengths.reshape(3, 6), axis=1))


def test_the_floors_are_those_of_counting_one_by_one(rolls):
    unigram = markov = 0.0
    steps = sum(len(piece) - 1 for piece in rolls.test)
    for pitch in range(88):
        counts = {(before, after): 0.5 for before in (0, 1) for after in (0, 1)}
        sounds = {0: 0.5, 1: 0.5}
        for piece in rolls.train:
            for before, after in zip(piece[:-1, pitch], piece[1:, pitch], strict=True):
                counts[int(before), int(after)] += 1
                sounds[int(after)] += 1
        for piece in rolls.test:
            for before, after in zip(piece[:-1, pitch], piece[1:, pitch], strict=True):
                before, after = int(before), int(after)
                unigram -= math.log(sounds[after] / (sounds[0] + sounds[1]))
                markov -= math.log(counts[before, after] / (counts[before, 0] + counts[before, 1]))
    floors = music.floors(rolls.train, rolls.test)
    assert floors == pytest.approx((unigram / steps, markov / steps), rel=1e-12)
