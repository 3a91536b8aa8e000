"""`jacobians`: of one sequence, with cotangents like the states."""

import jaxbptt as jb
from tests.cases import turns
from tests.errors.rows import PARAMS, B, T, assert_refused, d, each, jacobian, n, ones, singles, table

ROWS, row = table()

for name, (argument, value, pattern) in turns(
    ("along", "recursion", "written_out", "product"),
    (
        ("h_0", ones(n + 1), r"`h_0` must have shape .*\(4,\).*got \(5,\)"),
        ("xs", ones(0, d), r"`xs` must have .*T = 0"),
    ),
):
    function = getattr(jb.jacobians, name)
    row(
        f"jacobians.{name}-batch",
        ValueError,
        r"Jacobian matrices are of one sequence: got a state with batch axes \(6,\); use `jax.vmap`",
        lambda function=function: jacobian(function, xs=ones(T, B, d), h_0=ones(B, n)),
    )
    row(
        f"jacobians.{name}-{argument}",
        ValueError,
        pattern,
        lambda function=function, argument=argument, value=value: jacobian(function, **{argument: value}),
    )
for name, kind, changed, pattern in (
    ("immediate", ValueError, {"xs": ones(d + 1)}, r"`xs` must have shape .*d=3"),
    ("state", TypeError, {"xs": ones(d), "theta_h": PARAMS["gru"]}, r"`theta_h` must be ElmanParams.*got GRUParams"),
):
    function = getattr(jb.jacobians, name)
    row(
        f"jacobians.{name}-batch",
        ValueError,
        r"Jacobian matrices are of one sequence: got a state with batch axes \(6,\)",
        lambda function=function: jacobian(function, xs=ones(B, d), h_0=ones(B, n)),
    )
    row(
        f"jacobians.{name}-{'-'.join(changed)}",
        kind,
        pattern,
        lambda function=function, changed=changed: jacobian(function, **changed),
    )
row(
    "jacobians.jvp-shape",
    ValueError,
    r"`h_0_dot` must be like `h_0`, float64\[4\]: got float64\[5\]",
    lambda: jacobian(jb.jacobians.jvp, ones(n + 1)),
)
row(
    "jacobians.jvp-dtype",
    ValueError,
    r"`h_0_dot` must be like `h_0`, float64\[4\]: got float32\[4\]",
    lambda: jacobian(jb.jacobians.jvp, singles(n)),
)
row(
    "jacobians.jvp-tree",
    TypeError,
    r"`h_0_dot` must have the tree of `h_0`: got .*expected PyTreeDef\(\*\)",
    lambda: jacobian(jb.jacobians.jvp, (ones(n), ones(n))),
)
row(
    "jacobians.vjp-shape",
    ValueError,
    r"`h_bars` must be like `hs`, float64\[5, 4\]: got float64\[4\]",
    lambda: jacobian(jb.jacobians.vjp, ones(n)),
)
row(
    "jacobians.vjp-tree",
    TypeError,
    r"`h_bars` must have the tree of `hs`",
    lambda: jacobian(jb.jacobians.vjp, {"h": ones(T, n)}),
)


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
