"""Padding, reversing, ends and batches of sequences: beside loops over lists."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxbptt as jb

some_lengths = st.lists(st.integers(1, 7), min_size=1, max_size=5)


def drawn(lengths, width=2):
    rng = np.random.default_rng(sum(lengths))
    return [rng.standard_normal((length, width)) for length in lengths]


@settings(deadline=None, max_examples=30)
@given(some_lengths, st.integers(1, 5))
def test_what_is_padded_is_each_sequence_and_zeros(lengths, multiple):
    each = drawn(lengths)
    xs, found = jb.sequences.pad(each, multiple=multiple)
    assert found.tolist() == lengths
    assert len(xs) % multiple == 0
    assert 0 <= len(xs) - max(lengths) < multiple
    for b, one in enumerate(each):
        np.testing.assert_array_equal(xs[: len(one), b], one)
        assert not np.any(xs[len(one) :, b])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_masks_reversals_and_ends(lengths):
    T = 6
    xs = np.random.default_rng(0).standard_normal((T, len(lengths), 2))
    back = jb.sequences.reverse(jnp.asarray(xs), jnp.array(lengths))
    real, ends = jb.sequences.mask(jnp.array(lengths), T), jb.sequences.last(jnp.asarray(xs), jnp.array(lengths))
    assert real.shape == (T, len(lengths))
    for b, length in enumerate(lengths):
        assert np.asarray(real[:, b]).tolist() == [t < length for t in range(T)]
        np.testing.assert_array_equal(back[:, b], [*xs[:length, b][::-1], *xs[length:, b]])
        np.testing.assert_array_equal(ends[b], xs[max(length - 1, 0), b])
    np.testing.assert_array_equal(jb.sequences.reverse(back, jnp.array(lengths)), xs)


def test_without_lengths_all_steps_are_real():
    xs = {"a": jnp.arange(3.0), "b": jnp.arange(6).reshape(3, 2)}
    assert jb.sequences.reverse(xs)["a"].tolist() == [2.0, 1.0, 0.0]
    assert jax.tree.map(lambda leaf: leaf.tolist(), jb.sequences.last(xs)) == {"a": 2.0, "b": [4, 5]}


@settings(deadline=None, max_examples=30)
@given(some_lengths, st.integers(1, 4), st.one_of(st.none(), st.integers(0, 3)))
def test_batches_hold_every_sequence_once_and_similar_lengths(lengths, size, seed):
    found = jb.sequences.bucket(lengths, size, seed=seed)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= size for batch in found)
    assert len(found) == -(-len(lengths) // size)
    spans = sorted((lengths[batch[0]], lengths[batch[-1]]) for batch in found)
    assert all(batch.tolist() == sorted(batch, key=lambda k: lengths[k]) for batch in found)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert all(map(np.array_equal, found, jb.sequences.bucket(lengths, size, seed=seed)))


def test_a_seed_shuffles():
    lengths = [3] * 40
    first, second = (np.concatenate(jb.sequences.bucket(lengths, 4, seed=seed)) for seed in (0, 1))
    assert not np.array_equal(first, second)
    assert np.concatenate(jb.sequences.bucket(lengths, 4)).tolist() == list(range(40))


def test_trees_are_padded_leaf_by_leaf():
    each = [(np.ones((length, 2), np.float32), np.arange(length)) for length in (2, 3)]
    (xs, tokens), lengths = jb.sequences.pad(each)
    assert (xs.shape, xs.dtype, tokens.tolist()) == ((3, 2, 2), np.float32, [[0, 0], [1, 1], [0, 2]])
    assert lengths.tolist() == [2, 3]


@pytest.mark.parametrize("at", ["steps", "last"])
def test_what_is_padded_goes_into_F(at):
    model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    theta = model.init(jax.random.key(0), input_size=2, hidden_size=3, output_size=2, dtype=jnp.float64)
    each = drawn([4, 1, 3])
    xs, lengths = jb.sequences.pad(each, multiple=4)
    F = jb.objective(model, jb.losses.l2_loss, at=at, reduction="sum")
    targets = [one if at == "steps" else one[-1] for one in each]
    wanted = sum(F(theta, jnp.asarray(one), jnp.asarray(y)) for one, y in zip(each, targets, strict=True))
    ys = xs if at == "steps" else jb.sequences.last(jnp.asarray(xs), lengths)
    np.testing.assert_allclose(F(theta, jnp.asarray(xs), jnp.asarray(ys), lengths=jnp.asarray(lengths)), wanted)
