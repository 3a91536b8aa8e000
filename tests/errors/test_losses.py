"""Losses and masks."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

import jaxbptt as jb
from tests.cases import turns
from tests.errors.rows import (
    MODEL,
    THETA,
    B,
    T,
    assert_refused,
    check_gradients,
    d,
    each,
    flags,
    ints,
    l2,
    m,
    n,
    objective,
    ones,
    table,
    update,
)

ROWS, row = table()

# A user's loss, and the mask beside it

CALLS: dict[str, Callable] = {
    "objective": objective,
    "bptt": lambda **changed: update(jb.estimators.bptt, **changed),
    "rtrl": lambda **changed: update(jb.estimators.rtrl, **changed),
    "check_gradients": lambda **changed: check_gradients(**changed),
}
# A loss of the user's own, what comes of it, and the message.
LOSSES = (
    ("features-kept", lambda y_hat, y: y_hat - y, ValueError, r"one number .*\(6,\): got \(6, 2\) .*over features"),
    ("batch-summed", lambda y_hat, y: jnp.sum(y_hat), ValueError, r"one number .*: got \(\) .*not over the batch"),
    ("a-pair", lambda y_hat, y: (l2(y_hat, y), y_hat), TypeError, r"one array of .*: got a tuple; .*`model.apply`"),
    ("integer", lambda y_hat, y: jnp.sum(y_hat > y, -1, dtype=np.int32), TypeError, "real floating point: got int32"),
    ("complex", lambda y_hat, y: jnp.sum(y_hat, -1).astype(complex), TypeError, "real floating point: got complex128"),
)  # fmt: skip
MASKS = (
    ("integer", ints(T, B), TypeError, r"`mask` must be boolean, or floating-point weights: got int32; write `jnp"),
    ("complex", ones(T, B, dtype=complex), TypeError, r"`mask` must be boolean, or .* weights: got complex128"),
    ("list", [[True]], TypeError, r"`mask` must be boolean, or floating-point weights: got list; write `jnp"),
    ("T", flags(T - 1, B), ValueError, r"`mask` must share the time axis of `xs`, T=5: got mask.shape=\(4, 6\)"),
    ("scalar", np.bool_(True), ValueError, r"`mask` must share the time axis of `xs`, T=5: got mask.shape=\(\)"),
    ("batch", flags(T, B + 1), ValueError, r"`mask` must have shape \[T, \*batch\] = \(5, 6\).*got .*\(5, 7\)"),
    ("time-only", flags(T), ValueError, r"`mask` must have shape .* = \(5, 6\).*got .*\(5,\).*broadcast_to"),
    ("features", flags(T, B, m), ValueError, r"`mask` must have shape .* = \(5, 6\).*got .*\(5, 6, 2\)"),
)  # fmt: skip
for (name, call), (what, loss, kind, pattern) in turns(CALLS.items(), LOSSES):
    row(f"{name}-loss-{what}", kind, rf"`loss` must return {pattern}", lambda call=call, loss=loss: call(loss=loss))
for (name, call), (what, mask, kind, pattern) in turns(CALLS.items(), MASKS):
    row(f"{name}-mask-{what}", kind, pattern, lambda call=call, mask=mask: call(mask=mask))
for name, call in CALLS.items():
    row(
        f"{name}-nobody",
        ValueError,
        r"the batch must have at least one sequence: got batch axes \(0,\).*leave an empty batch out",
        lambda call=call: call(xs=ones(T, 0, d), ys=ones(T, 0, m), h_0=ones(0, n)),
    )
    row(
        f"{name}-loss-fails",
        TypeError,
        r"`loss` does not accept its arguments \(float64\[6, 2\], float64\[6, 2\]\): .*(unexpected|takes|argument)",
        lambda call=call: call(loss=lambda y_hat: y_hat),
    )

# Which steps are real, and the keys and masks that are none

CALLS = {
    "objective": objective,
    "bptt": lambda **changed: update(jb.estimators.bptt, **changed),
    "rtrl": lambda **changed: update(jb.estimators.rtrl, **changed),
    "apply": lambda **changed: MODEL.apply(THETA, ones(T, B, d), ones(B, n), **changed),
    "gradient_flow": lambda **changed: jb.diagnostics.gradient_flow(
        MODEL, l2, THETA, ones(T, B, d), ones(T, B, m), ones(B, n), **changed
    ),
}
for (name, call), (what, lengths, kind, pattern) in turns(
    CALLS.items(),
    (
        ("float", ones(B), TypeError, r"`lengths` must be integers, an array \[\*batch\]: got float64; write `jnp"),
        ("flags", flags(B), TypeError, r"`lengths` must be integers, an array \[\*batch\]: got bool; write `jnp"),
        ("list", [1] * B, TypeError, r"`lengths` must be integers, an array \[\*batch\]: got list; write `jnp.asarray"),
        ("number", np.int32(3), ValueError, r"`lengths` must be one number .* = \(6,\): got \(\); `jnp.broadcast_to`"),
        ("batch", ints(B + 1), ValueError, r"`lengths` must be one number .* = \(6,\): got \(7,\)"),
        ("steps", ints(T, B), ValueError, r"`lengths` must be one number .* = \(6,\): got \(5, 6\)"),
    ),
):  # fmt: skip
    row(f"{name}-lengths-{what}", kind, pattern, lambda call=call, lengths=lengths: call(lengths=lengths))
for name, call in CALLS.items():
    if name != "gradient_flow":
        row(
            f"{name}-key",
            TypeError,
            r"`key` must be one random key: got int \(7\); make one with `jax.random.key",
            lambda call=call: call(key=7),
        )
row("step-key", TypeError, r"`key` must be one random key: got int \(7\)", lambda: MODEL.step(
    THETA, ones(B, d), ones(B, n), key=7))  # fmt: skip
for what, mask, kind, pattern in (
    ("steps", flags(T, B), ValueError, r"`mask` must have shape .*\(1, 6\).*got .*\(1, 5, 6\)"),
    ("batch", flags(B + 1), ValueError, r"`mask` must have shape .*\(1, 6\).*got .*\(1, 7\)"),
    ("integer", ints(B), TypeError, r"`mask` must be boolean, or floating-point weights: got int32"),
    ("list", [True] * B, TypeError, r"`mask` must be boolean, or floating-point weights: got list"),
):
    row(
        f"last-mask-{what}",
        kind,
        pattern,
        lambda mask=mask: objective(options={"at": "last"}, ys=ones(B, m), mask=mask),
    )
row(
    "last-ys-of-steps",
    ValueError,
    r"losses.l2_loss takes `y_hat_t` and `y_t` of one shape",
    lambda: objective(options={"at": "last"}),
)

# The losses of `jb.losses`

for name in ("l2_loss", "sigmoid_binary_cross_entropy"):
    loss = getattr(jb.losses, name)
    for what, kind, pattern, arguments in (
        ("dtype", TypeError, "floating-point predictions and targets: got float64 and int32", (ones(m), ints(m))),
        ("y_hat", TypeError, "floating-point predictions and targets: got int32 and float64", (ints(m), ones(m))),
        ("shape", ValueError, r"of one shape \[\*batch, m\]: got \(6, 2\) and \(6,\)", (ones(B, m), ones(B))),
        ("scalar", ValueError, r"of one shape \[\*batch, m\]: got \(\) and \(\)", (ones(), ones())),
    ):
        row(
            f"{name}-{what}",
            kind,
            rf"losses.{name} takes .*{pattern}",
            lambda loss=loss, arguments=arguments: loss(*arguments),
        )
for what, kind, pattern, arguments in (
    ("labels", TypeError, "logits and integer labels: got float64 and float64", (ones(B, m), ones(B))),
    ("logits", TypeError, "logits and integer labels: got int32 and int32", (ints(B, m), ints(B))),
    ("one-hot", ValueError, r"m\] and labels \[\*batch\]: got \(6, 2\) and \(6, 2\)", (ones(B, m), ints(B, m))),
    ("scalar", ValueError, r"\[\*batch, m\] and labels \[\*batch\]: got \(\) and \(\)", (ones(), ints())),
):  # fmt: skip
    row(
        f"softmax_cross_entropy-{what}",
        kind,
        rf"losses.softmax_cross_entropy takes .*{pattern}",
        lambda arguments=arguments: jb.losses.softmax_cross_entropy(*arguments),
    )


row(
    "ys-of-all-members-beside-a-mask",
    ValueError,
    r"`ys` must begin with \[T, \*batch\] = \(5, 6\), as a mask or lengths count its steps: got \(5,\); use `jnp",
    lambda: jb.objective(MODEL, lambda y_hat_t, y_t: y_t * jnp.sum(y_hat_t, axis=-1))(
        THETA, ones(T, B, d), ones(T), mask=flags(T, B)
    ),
)


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
