"""A batch split over devices, of which conftest makes two."""

import re
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

import jaxbptt as jb
from tests.errors.rows import MODEL, THETA, T, assert_refused, d, each, l2, m, ones, table

ROWS, row = table()


def split(**changed):
    good: dict[str, Any] = {"theta": THETA, "xs": ones(T, 4, d), "ys": ones(T, 4, m)}
    return jb.data_parallel(jb.objective(MODEL, l2))(**good | changed)


row("F", TypeError, r"`F` must be an objective.*got function", lambda: jb.data_parallel(lambda theta: 0.0))
for name, transformed, batch, came in (
    ("vmap", lambda F: jax.vmap(F, in_axes=(None, 0, 0, None)), (2, 4), r"float\d+\[2\]"),
    ("grad", jax.grad, (), r"Theta\(.*\)"),
    ("value-and-grad", jax.value_and_grad, (), r"\('float\d+\[\]', Theta\(.*\)\)"),
):
    row(
        f"F-{name}",
        TypeError,
        rf"`F` must return one floating-point number, as an array: got {came}; hand .* `jax.vmap\(jb",
        lambda transformed=transformed, batch=batch: jb.data_parallel(transformed(jb.objective(MODEL, l2)))(
            THETA, ones(*batch or (T,), 4, d), ones(*batch or (T,), 4, m)
        ),
    )


def counting(theta, xs, ys, h_0):
    return jnp.int32(3)


vars(counting).update(reduction="sum", at="steps", has_aux=False)
row(
    "F-integer",
    TypeError,
    r"`F` must return one floating-point number, as an array: got int32\[\]",
    lambda: jb.data_parallel(counting)(THETA, ones(T, 4, d), ones(T, 4, m)),
)
row(
    "F-none",
    ValueError,
    r"`F` must be one number, to be summed over the devices: got an objective with reduction='none'; take \"mean\"",
    lambda: jb.data_parallel(jb.objective(MODEL, l2, reduction="none")),
)
row(
    "devices-one-twice",
    ValueError,
    r"`devices` must be distinct: got one twice, .*; take some of `jax.devices\(\)`",
    lambda: jb.data_parallel(jb.objective(MODEL, l2), [jax.devices()[0]] * 2),
)
for value in (("cpu",), (), 2, "cpu", jax.devices()[0]):
    row(
        f"devices-{value!r}",
        TypeError,
        rf"`devices` must be devices: got {re.escape(repr(value))}; take some of `jax.devices\(\)`",
        lambda value=value: jb.data_parallel(jb.objective(MODEL, l2), value),
    )
row(
    "batch-divides",
    ValueError,
    r"batch of `xs` must be a multiple of the 2 devices: got 3 along axis 1, which is taken for the "
    r"batch: for what has no batch use F itself, else pad it by 1 and give a `mask`, False there",
    lambda: split(xs=ones(T, 3, d), ys=ones(T, 3, m)),
)
row(
    "batch-axis",
    ValueError,
    rf"`xs` must have a batch axis to split, axis 1: got .*\[{T}\]; for what has no batch use F itself",
    lambda: split(xs=ones(T), ys=ones(T), h_0=None),
)
row(
    "one-batch",
    ValueError,
    r"the batch of `h_0\['v'\]` must be that of `xs`, 4: got 2 along axis 0; give what all members share a batch axis",
    lambda: split(h_0={"s": ones(4, 2), "v": ones(2)}),
)


def under_a_mesh(kind):
    with jax.set_mesh(jax.make_mesh((2,), ("data",), axis_types=(kind,))):
        split()


for kind in AxisType.Auto, AxisType.Explicit:
    row(
        f"another-mesh-{kind.name}",
        ValueError,
        r"`data_parallel` makes a mesh of its devices: got a call where another one is set, \('data',\); call it",
        lambda kind=kind: under_a_mesh(kind),
    )


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
