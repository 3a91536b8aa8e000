"""Cells that draw: F, estimators and models make their keys, one a layer, step and member, of one key."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt.cells import Keyed
from tests import oracles
from tests.cases import normal

C, T, B, n = jb.cells, 6, 3, 4
KEY = jax.random.key(5)
CELLS = {
    "noise": C.euler(C.leaky(), noise=0.3),
    "zoneout": C.zoneout(C.lstm(), C.LSTMState(h=0.4, c=0.6)),
    "masked": C.resettable(C.zoneout(C.gru(), 0.5)),
}


@functools.cache
def given_of(name):
    model = jb.rnn(CELLS[name], jb.readouts.linear())
    theta = model.init(jax.random.key(0), input_size=2, hidden_size=n, output_size=2, dtype=jnp.float64)
    xs, ys = normal(jax.random.key(1), (T, B, 2)), normal(jax.random.key(2), (T, B, 2))
    return model, theta, xs if name != "masked" else C.ResetInput(xs, jnp.arange(T * B).reshape(T, B) % 5 == 0), ys


def close(found, wanted, rtol=1e-10):
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert np.any(right)
        np.testing.assert_allclose(left, right, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("name", CELLS)
def test_F_is_the_cell_at_keys_of_each_step_and_member(name):
    model, theta, xs, ys = given_of(name)
    F = jb.objective(model, jb.losses.l2_loss)
    first, again, other, without = (F(theta, xs, ys, key=key) for key in (KEY, KEY, jax.random.key(6), None))
    assert first == again
    assert len({float(first), float(other), float(without)}) == 3
    # The same by hand: a loop that splits keys as the docstring of the cell's inputs has it.
    own, h, total = jax.random.fold_in(KEY, 2**32 - 1), model.initial_state(theta, (B,)), 0.0
    for t in range(T):
        keys = jax.random.split(jax.random.fold_in(own, t), B)
        x_t = jax.tree.map(lambda leaf, t=t: leaf[t], xs)
        x_t = x_t._replace(x=Keyed(x_t.x, keys)) if name == "masked" else Keyed(x_t, keys)
        h = model.cell.apply(theta.h, x_t, h)
        y_hat = model.readout.apply(theta.o, model.cell.output(h))
        total += np.sum(oracles.half_square(np.asarray(y_hat), np.asarray(ys[t])))
    np.testing.assert_allclose(first, total / (T * B), rtol=1e-12)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("lengths", [None, (6, 2, 4)])
def test_every_order_of_the_sum_sees_the_same_draws(name, lengths):
    model, theta, xs, ys = given_of(name)
    options = {"key": KEY, "lengths": None if lengths is None else jnp.array(lengths)}
    F = functools.partial(jb.objective, model, jb.losses.l2_loss)
    wanted = jax.grad(F(adjoint=jb.adjoints.autodiff()))(theta, xs, ys, **options)
    for adjoint in (jb.adjoints.full(), jb.adjoints.full(block=2, residuals="states"), jb.adjoints.checkpointed(2)):
        close(jax.grad(F(adjoint=adjoint))(theta, xs, ys, **options), wanted)
    make = jb.estimators
    for estimator in (
        make.bptt(model, jb.losses.l2_loss),
        make.rtrl(model, jb.losses.l2_loss),
        make.windowed(model, jb.losses.l2_loss, window=9),
    ):
        estimate, _ = jax.jit(estimator.update)(theta, estimator.init(theta), xs, ys, **options)
        close(estimate.grads, wanted)
    without = jax.grad(F())(theta, xs, ys, lengths=options["lengths"])
    assert not np.allclose(without.o.W_o, wanted.o.W_o)


def test_the_share_of_units_that_stay():
    cell = C.zoneout(C.elman(), 0.3)
    theta_h = cell.init(jax.random.key(0), 2, 50, jnp.float64)
    xs = Keyed(normal(KEY, (40, 20, 2)), jax.random.split(KEY, (40, 20)))
    _, hs = jb.unroll(cell, theta_h, xs, jnp.ones((20, 50)))
    stayed = np.diff(hs, axis=0) == 0
    assert abs(stayed.mean() - 0.3) < 5 * (0.21 / stayed.size) ** 0.5
    assert np.ptp(stayed.mean(axis=(0, 1))) < 0.2  # no unit stays more than another


def test_layers_and_directions_draw_their_own():
    cell = C.zoneout(C.linear(), 0.5)
    model = jb.rnn((jb.bidirectional(cell), cell), jb.readouts.identity())
    theta = model.init(jax.random.key(0), input_size=2, hidden_size=30, output_size=30, dtype=jnp.float64)
    one = C.LinearParams(jnp.ones((30, 2)), jnp.zeros((30, 30)))
    theta = theta._replace(h=(jb.layers.Directions(one, one), theta.h[1]))
    below = jb.rnn((jb.bidirectional(cell),), jb.readouts.identity())
    z = below.apply(theta._replace(h=theta.h[:1]), jnp.ones((5, 1, 2)), key=KEY)[:, 0]
    forward, backward = np.asarray(z[:, :30] != 0), np.asarray(z[::-1, 30:] != 0)
    assert 0.2 < np.mean(forward[0] == backward[0]) < 0.8
    first, second = (model.apply(theta, jnp.ones((5, 1, 2)), key=key) for key in (KEY, jax.random.key(9)))
    assert not np.allclose(first, second)


def test_every_layer_has_keys_of_its_own():
    cell = C.zoneout(C.gru(), 0.5)
    model = jb.rnn((cell, cell), jb.readouts.identity())
    theta = model.init(jax.random.key(0), input_size=2, hidden_size=3, output_size=3, dtype=jnp.float64)
    xs = normal(jax.random.key(1), (T, B, 2))
    found, hs = model.apply(theta, xs, key=KEY), model.initial_state(theta, (B,))
    parents = [jax.random.fold_in(KEY, 2**32 - 1 - 2 * k) for k in range(2)]
    for t in range(T):
        z, states = xs[t], []
        for theta_k, h, parent in zip(theta.h, hs, parents, strict=True):
            z = cell.apply(theta_k, Keyed(z, jax.random.split(jax.random.fold_in(parent, t), B)), h)
            states.append(z)
        hs = tuple(states)
        np.testing.assert_allclose(found[t], z, rtol=1e-12)


def test_one_key_a_sequence_for_a_mask_that_stays():
    def step(theta_h, x_t, h_tm1):
        x_t, key = x_t if isinstance(x_t, Keyed) else (x_t, None)
        stays = jnp.ones(()) if key is None else jax.random.bernoulli(key, 0.5, x_t.shape[-1:]).astype(x_t.dtype)
        return theta_h * h_tm1 * 0 + x_t * stays

    def init(*sizes, dtype=None):
        return jnp.ones(())

    def initial_state(theta_h, batch_shape=()):
        return jnp.zeros((*batch_shape, 8))

    cell = C.from_step(step, init=init, initial_state=initial_state)
    model = jb.rnn(cell._replace(draws="sequence"), jb.readouts.identity())
    theta = jb.Theta(jnp.ones(()), ())
    kept = np.asarray(model.apply(theta, jnp.ones((T, 8)), key=KEY))
    assert 0 < kept[0].sum() < 8
    np.testing.assert_array_equal(kept, np.broadcast_to(kept[0], kept.shape))


def test_an_old_key_will_do_and_step_and_generate_take_one():
    model, theta, xs, ys = given_of("noise")
    F = jb.objective(model, jb.losses.l2_loss)
    assert F(theta, xs, ys, key=jax.random.PRNGKey(5)) == F(theta, xs, ys, key=KEY)
    h = model.initial_state(theta, (B,))
    still, noisy = (model.step(theta, xs[0], h, key=key)[0] for key in (None, KEY))
    assert not np.allclose(still, noisy)
    first, again, other = (model.generate(theta, xs[0], steps=4, key=jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert not np.allclose(np.diff(first, axis=0)[0], np.diff(first, axis=0)[1])
