"""Networks of layers: each sequence alone and unpadded, by loops of NumPy, and the same stack as one cell."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt.cells import MaskedInput, ResetInput, masked, resettable
from tests import oracles
from tests.cases import ADJOINTS, normal, randomised

C, both = jb.cells, jb.bidirectional
T, LENGTHS, d, m = 4, (4, 2, 0, 1), 2, 2
FILLS = (np.nan, np.inf, 1e38)
real = np.arange(T)[:, None] < np.array(LENGTHS)
STEPS = {
    C.gru(): (oracles.gru_step, lambda h: h),
    C.elman(): (oracles.elman_step("tanh"), lambda h: h),
    C.linear(): (oracles.linear_step, lambda h: h),
    C.lstm(): (oracles.lstm_step, lambda h: h.h),
}


class Network(NamedTuple):
    """Layers, their sizes and options of `rnn`."""

    layers: tuple
    sizes: tuple
    options: dict[str, Any]


NETWORKS = {
    "stack": Network((C.gru(), C.lstm()), (3, 2), {}),
    "directions": Network((both(C.lstm()), both(C.gru(), C.elman())), (2, 3), {}),
    "mixed": Network((C.elman(), both(C.gru()), C.linear()), (2, 1, 2), {"residual": True}),
}


class Given(NamedTuple):
    """A model and what F takes."""

    model: jb.Model
    theta: jb.Theta
    xs: jax.Array
    ys: jax.Array
    h_0: Any


@functools.cache
def given_of(name):
    layers, sizes, options = NETWORKS[name]
    model = jb.rnn(layers, jb.readouts.linear(), **options)
    keys = jax.random.split(jax.random.key(3), 5)
    of_sizes = {"input_size": d, "hidden_size": sizes, "output_size": m, "dtype": jnp.float64}
    theta = randomised(jax.eval_shape(lambda key: model.init(key, **of_sizes), keys[0]), keys[1], 0.6)
    B = len(LENGTHS)
    h_0 = randomised(jax.eval_shape(lambda theta: model.initial_state(theta, (B,)), theta), keys[2], 0.5)
    return Given(model, theta, normal(keys[3], (T, B, d)), normal(keys[4], (T, B, m)), h_0)


def one_layer(layer, theta, xs, h_0):
    """(h_T, outputs) of a list of inputs."""
    if isinstance(layer, jb.layers.Bidirectional):
        h_f, forward = one_layer(layer.forward, theta.forward, xs, h_0.forward)
        h_b, backward = one_layer(layer.backward, theta.backward, xs[::-1], h_0.backward)
        pairs = zip(forward, backward[::-1], strict=True)
        return jb.layers.Directions(h_f, h_b), [np.concatenate(pair) for pair in pairs]
    step, output = STEPS[layer]
    states = oracles.states(step, theta, xs, h_0)
    return states[-1], [output(h) for h in states[1:]]


def alone(network, theta, xs, h_0):
    """(h_T, ŷ_1 … ŷ_L) of one sequence, unpadded."""
    below, h_T = None, []
    for layer, theta_k, h_k in zip(network.layers, theta.h, h_0, strict=True):
        last, outputs = one_layer(layer, theta_k, xs, h_k)
        if network.options.get("residual") and below is not None and below[0].shape == outputs[0].shape:
            outputs = [z + lower for z, lower in zip(outputs, below, strict=True)]
        h_T.append(last)
        below = xs = outputs
    return tuple(h_T), [theta.o.W_o @ z + theta.o.b for z in xs]


@functools.cache
def wanted(name, at):
    """F and its gradient by the complex step, each sequence alone."""
    given, network = given_of(name), NETWORKS[name]
    leaves, structure = jax.tree.flatten((given.theta, given.xs, given.h_0))
    ys = np.asarray(given.ys)

    def F(arrays):
        theta, xs, h_0 = structure.unflatten(arrays)
        total = 0.0
        for b, length in enumerate(LENGTHS):
            if length:
                _, y_hats = alone(network, theta, list(xs[:length, b]), jax.tree.map(lambda leaf, b=b: leaf[b], h_0))
                Ls = [oracles.half_square(y_hat, y) for y_hat, y in zip(y_hats, ys[:, b], strict=False)]
                total += sum(Ls) if at == "steps" else oracles.half_square(y_hats[-1], ys[0, b])
        return total / (sum(LENGTHS) if at == "steps" else int(np.count_nonzero(LENGTHS)))

    return np.real(F(list(map(np.asarray, leaves)))), structure.unflatten(oracles.gradient(F, leaves))


def assert_near(found, wanted, rtol=1e-10):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert np.any(right)
        np.testing.assert_allclose(left, right, rtol=rtol, atol=1e-13)


PAIRS = [(name, adjoint) for k, adjoint in enumerate(ADJOINTS) for name in (list(NETWORKS)[k % 3],)]
PAIRS += [("directions", "checkpointed"), ("mixed", "autodiff"), ("directions", "full")]


@pytest.mark.parametrize(("name", "adjoint"), PAIRS)
@pytest.mark.parametrize("at", ["steps", "last"])
def test_a_padded_batch_is_each_sequence_alone(name, adjoint, at):
    given = given_of(name)
    ys = given.ys if at == "steps" else given.ys[0]
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=ADJOINTS[adjoint], at=at)
    F = functools.partial(F, lengths=jnp.array(LENGTHS))
    value, found = jax.jit(jax.value_and_grad(F, argnums=(0, 1, 3)))(given.theta, given.xs, ys, given.h_0)
    of_F, bars = wanted(name, at)
    np.testing.assert_allclose(value, of_F, rtol=1e-12)
    assert_near(found, bars)


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_last_states_are_those_of_each_sequence_alone(name):
    given, network = given_of(name), NETWORKS[name]
    y_hats, h_T = given.model.apply(
        given.theta, given.xs, given.h_0, lengths=jnp.array(LENGTHS), return_state=True, adjoint=ADJOINTS["full-blocks"]
    )
    theta = jax.tree.map(np.asarray, given.theta)
    for b, length in enumerate(LENGTHS):
        h_0 = jax.tree.map(lambda leaf, b=b: np.asarray(leaf[b]), given.h_0)
        if length == 0:
            assert_near(jax.tree.map(lambda leaf, b=b: leaf[b], h_T), h_0, 0)
            continue
        last, outputs = alone(network, theta, list(np.asarray(given.xs[:length, b])), h_0)
        np.testing.assert_allclose(y_hats[:length, b], np.stack(outputs), rtol=1e-12)
        assert_near(jax.tree.map(lambda leaf, b=b: leaf[b], h_T), last)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("name", NETWORKS)
def test_what_padding_holds_changes_no_bit(name, fill):
    given = given_of(name)
    F = jax.jit(jax.value_and_grad(jb.objective(given.model, jb.losses.l2_loss), argnums=(0, 1, 3)))

    def filled(leaf, value):
        return jnp.where(real[..., None], leaf, value)

    of = [
        F(given.theta, filled(given.xs, value), filled(given.ys, value), given.h_0, lengths=jnp.array(LENGTHS))
        for value in (0.0, fill)
    ]
    for left, right in zip(*map(jax.tree.leaves, of), strict=True):
        assert np.all(np.isfinite(left))
        np.testing.assert_array_equal(left, right)


def test_a_causal_network_is_the_stack_as_one_cell():
    cells = C.gru(), C.lstm(), C.elman()
    layers, stack = jb.rnn(cells, jb.readouts.linear()), jb.rnn(C.stacked(*cells), jb.readouts.linear())
    assert layers.cell == C.stacked(*cells)
    sizes = {"input_size": 2, "hidden_size": 3, "output_size": 2, "dtype": jnp.float64}
    theta = layers.init(jax.random.key(0), **sizes)
    assert jax.tree.all(jax.tree.map(np.array_equal, theta, stack.init(jax.random.key(0), **sizes)))
    given = given_of("stack")
    make, loss = jb.estimators, jb.losses.l2_loss
    estimators = [make.bptt(layers, loss), make.rtrl(layers, loss), make.windowed(layers, loss, window=9)]
    wanted = jax.grad(jb.objective(stack, jb.losses.l2_loss))(theta, given.xs, given.ys)
    for estimator in estimators:
        estimate, state = jax.jit(estimator.update)(theta, estimator.init(theta), given.xs, given.ys)
        assert_near(estimate.grads, wanted)
        assert jax.tree.structure(state.h) == jax.tree.structure(layers.initial_state(theta, (4,)))


def products_by_place(jaxpr, inside=False):
    """The shapes that products read, outside and inside of loops."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield inside, tuple(sorted(tuple(var.aval.shape) for var in equation.invars))
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "jaxpr") or hasattr(leaf, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from products_by_place(inner, inside or equation.primitive.name in ("scan", "while"))


def test_every_layers_input_product_leaves_its_scan():
    given = given_of("stack")
    found = set(products_by_place(jax.make_jaxpr(given.model.apply)(given.theta, given.xs).jaxpr))
    W_x = given.theta.h[1].W_x.shape
    assert any(W_x in shapes for inside, shapes in found if not inside)
    assert not any(W_x in shapes for inside, shapes in found if inside)
    stack = jb.rnn(given.model.cell, given.model.readout)
    found = set(products_by_place(jax.make_jaxpr(stack.apply)(given.theta, given.xs).jaxpr))
    assert any(W_x in shapes for inside, shapes in found if inside)


def test_gaps_anywhere_are_steps_that_are_not_there():
    plain = Network((C.gru(), both(C.lstm())), (3, 2), {})
    model = jb.rnn((masked(C.gru()), both(masked(C.lstm()))), jb.readouts.linear())
    of_sizes = {"input_size": d, "hidden_size": plain.sizes, "output_size": m, "dtype": jnp.float64}
    theta = model.init(jax.random.key(0), **of_sizes)
    xs = normal(jax.random.key(1), (T, 4, d))
    flags = np.array([[1, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], bool).T
    y_hats, h_T = model.apply(theta, MaskedInput(xs, jnp.array(flags)), return_state=True)
    theta = jax.tree.map(np.asarray, theta)
    for b in range(4):
        steps = np.flatnonzero(flags[:, b])
        if len(steps):
            h_0 = jax.tree.map(np.asarray, model.initial_state(theta))
            last, outputs = alone(plain, theta, list(np.asarray(xs[steps, b])), h_0)
            np.testing.assert_allclose(y_hats[steps, b], np.stack(outputs), rtol=1e-12)
            for left, right in zip(jax.tree.leaves(h_T), jax.tree.leaves(last), strict=True):
                np.testing.assert_allclose(left[b], right, rtol=1e-12)


def test_packed_rows_are_each_of_their_sequences_alone():
    plain = Network((both(C.elman()), both(C.gru())), (3, 2), {})
    model = jb.rnn((both(resettable(C.elman())), both(resettable(C.gru()))), jb.readouts.linear())
    of_sizes = {"input_size": d, "hidden_size": plain.sizes, "output_size": m, "dtype": jnp.float64}
    theta = model.init(jax.random.key(0), **of_sizes)
    xs = normal(jax.random.key(1), (7, d))
    begins = jnp.array([True, False, False, True, True, False, False])
    y_hats = model.apply(theta, ResetInput(xs, begins), model.initial_state(theta))
    theta = jax.tree.map(np.asarray, theta)
    h_0 = jax.tree.map(np.asarray, model.initial_state(theta))
    for start, end in ((0, 3), (3, 4), (4, 7)):
        _, outputs = alone(plain, theta, list(np.asarray(xs[start:end])), h_0)
        np.testing.assert_allclose(y_hats[start:end], np.stack(outputs), rtol=1e-12)


def passed_on(per, rate=0.4):
    """z of a first layer, and what a second one that passes its input on makes of it."""
    model = jb.rnn((C.gru(), C.linear()), jb.readouts.identity(), dropout=rate, dropout_per=per)
    theta = model.init(jax.random.key(0), input_size=2, hidden_size=16, output_size=16, dtype=jnp.float64)
    theta = theta._replace(h=(theta.h[0], C.LinearParams(jnp.eye(16), jnp.zeros((16, 16)))))
    xs = normal(jax.random.key(1), (20, 8, 2))
    return model.apply(theta, xs), functools.partial(model.apply, theta, xs)


@pytest.mark.parametrize("per", ["step", "sequence"])
def test_dropout_is_of_the_output_between_layers(per):
    z, apply = passed_on(per)
    dropped = apply(key=jax.random.key(2))
    np.testing.assert_array_equal(apply(key=jax.random.key(2)), dropped)
    assert not np.array_equal(apply(key=jax.random.key(3)), dropped)
    gone = np.asarray(dropped == 0)
    np.testing.assert_allclose(dropped, np.where(gone, 0, z / 0.6), rtol=1e-14)
    draws = gone[0] if per == "sequence" else gone
    assert abs(draws.mean() - 0.4) < 5 * (0.24 / draws.size) ** 0.5
    assert np.all(gone == gone[0]) == (per == "sequence")
    assert not np.all(gone[0] == gone[0][0])  # each member its own


def test_the_gradient_with_dropout_is_that_of_the_network_as_drawn():
    given = given_of("stack")
    model = jb.rnn(NETWORKS["stack"].layers, jb.readouts.linear(), dropout=0.5)
    F = functools.partial(jb.objective(model, jb.losses.l2_loss), key=jax.random.key(1))
    leaves, structure = jax.tree.flatten(given.theta)
    run = jax.jit(lambda arrays: F(structure.unflatten(arrays), given.xs, given.ys))
    by_differences = oracles.central_differences(lambda arrays: float(run(arrays)), leaves)
    found = jax.tree.leaves(jax.grad(F)(given.theta, given.xs, given.ys))
    for left, right in zip(found, by_differences, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-9)
    estimator = jb.estimators.bptt(model, jb.losses.l2_loss)
    estimate, _ = estimator.update(given.theta, estimator.init(given.theta), given.xs, given.ys, key=jax.random.key(1))
    assert_near(estimate.grads, jax.grad(F)(given.theta, given.xs, given.ys))
    without = jax.grad(jb.objective(given.model, jb.losses.l2_loss))(given.theta, given.xs, given.ys)
    assert not np.allclose(estimate.grads.h[0].W_x, without.h[0].W_x)


def test_a_bidirectional_model_begins_anew_with_each_chunk():
    given = given_of("directions")
    estimator = jb.estimators.bptt(given.model, jb.losses.l2_loss)
    first, state = estimator.update(given.theta, estimator.init(given.theta), given.xs, given.ys)
    assert state.h is None
    again, _ = estimator.update(given.theta, state, given.xs, given.ys)
    np.testing.assert_array_equal(first.loss, again.loss)
    deep = given_of("stack")
    estimator = jb.estimators.bptt(deep.model, jb.losses.l2_loss)
    _, state = estimator.update(deep.theta, estimator.init(deep.theta), deep.xs, deep.ys)
    assert jax.tree.structure(state.h) == jax.tree.structure(deep.h_0)


def test_a_layer_of_two_directions_alone_is_a_network_of_one_layer():
    alone, network = (jb.rnn(cell, jb.readouts.linear()) for cell in (both(C.gru()), (both(C.gru()),)))
    assert alone.layers.layers == network.layers.layers


@pytest.mark.parametrize("name", ["directions", "mixed"])
def test_batch_axes_vmap_and_devices_are_loops(name):
    given = given_of(name)
    F = jb.objective(given.model, jb.losses.l2_loss)
    wanted = jax.grad(F)(given.theta, given.xs, given.ys, given.h_0)
    split = jb.data_parallel(F)
    assert_near(jax.grad(split)(given.theta, given.xs, given.ys, given.h_0), wanted)
    by_member = jax.vmap(jax.grad(F), in_axes=(None, 1, 1, 0))(given.theta, given.xs, given.ys, given.h_0)
    assert_near(jax.tree.map(lambda leaf: leaf.mean(axis=0), by_member), wanted)
    square = jax.tree.map(lambda leaf: leaf.reshape(2, 2, *leaf.shape[1:]), given.h_0)
    xs, ys = (leaf.reshape(T, 2, 2, -1) for leaf in (given.xs, given.ys))
    assert_near(jax.grad(F)(given.theta, xs, ys, square), wanted)


def test_mixed_precision_of_layers():
    layers = NETWORKS["directions"].layers
    plain, rounded = (
        jb.rnn(layers, jb.readouts.linear(), policy=policy) for policy in (None, jb.policies.mixed_precision())
    )
    theta = plain.init(jax.random.key(0), input_size=d, hidden_size=(4, 3), output_size=m)
    xs = jax.random.normal(jax.random.key(1), (5, 3, d), jnp.float32)
    found, wanted = rounded.apply(theta, xs), plain.apply(theta, xs)
    assert 1e-5 < np.max(np.abs(found - wanted)) < 3e-2
