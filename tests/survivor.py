"""A small training that keeps itself on disk, to be killed: ``python tests/survivor.py FOLDER``.

Everything a checkpoint must hold is at work: Adam's moments over accumulated batches, a stream's state, keys, a
schedule, the order of the data, skipped steps, the best θ so far. As a module it is the same run in this process.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxbptt as jb

STEPS, EVERY, PER_DISPATCH = 240, 12, 4
MODEL = jb.rnn(jb.cells.linear(), jb.readouts.identity())
SEED = 3


def noisy(estimator):
    """The estimator with noise drawn from its key on top, so that a wrong key shows."""

    def update(theta, state, xs, ys, *, mask=None, lengths=None, key=None):
        estimate, state = estimator.update(theta, state, xs, ys, mask=mask, lengths=lengths, key=key)
        leaves, treedef = jax.tree.flatten(estimate.grads)
        keys = jax.random.split(key, len(leaves))
        noise = [0.1 * jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
        return estimate._replace(grads=jax.tree.map(jnp.add, estimate.grads, treedef.unflatten(noise))), state

    return jb.GradientEstimator(estimator.init, update)


ESTIMATOR = noisy(jb.estimators.bptt(MODEL, jb.losses.l2_loss))
OPTIMIZER = optax.MultiSteps(optax.adam(optax.cosine_decay_schedule(0.02, STEPS)), 2)


def train(folder, callbacks=(), saver=None, steps=STEPS):
    """The run kept in `folder`, or from the beginning to the end where `saver` is False."""
    rng = np.random.default_rng(SEED)
    xs, ys = rng.normal(size=(3, 20, 2)).astype(np.float32), rng.normal(size=(3, 20, 2)).astype(np.float32)
    order = jb.training.shuffled(20, 4, seed=SEED)

    def batch(k):
        scale = np.float32(np.nan if k % 17 == 5 else 1)  # some steps are skipped
        return scale * xs[:, order.at(k)], ys[:, order.at(k)]

    evaluate = jb.training.evaluator(MODEL, jb.losses.l2_loss)
    theta = MODEL.init(jax.random.key(SEED), input_size=2, hidden_size=2, output_size=2)
    watched = [
        jb.training.early_stopping(lambda theta: evaluate(theta, [(xs, ys)]), every=20),
        jb.training.metrics.jsonl(pathlib.Path(folder, "metrics.jsonl")),
        *callbacks,
    ]
    if saver is None:
        saver = jb.training.checkpoints.saver(pathlib.Path(folder, "run"), every=EVERY, about={"seed": SEED})
    return jb.training.fit(
        ESTIMATOR,
        OPTIMIZER,
        theta,
        batch,
        steps=steps,
        steps_per_dispatch=PER_DISPATCH,
        callback=watched,
        checkpoints=saver or None,
        h_0=jnp.ones((4, 2), jnp.float32),
        key=jax.random.key(SEED),
        streaming=True,
        skip_nonfinite=1,
    )


def leaves(result):
    """All that a run ends with, by name, keys as their data."""
    named = jax.tree_util.tree_leaves_with_path((result.state._replace(key=()), result.observed))
    found = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in named}
    return {**found, "key": np.asarray(jax.random.key_data(result.state.key))}


if __name__ == "__main__":
    final = train(sys.argv[1])
    np.savez(pathlib.Path(sys.argv[1], "final.npz"), **leaves(final))
