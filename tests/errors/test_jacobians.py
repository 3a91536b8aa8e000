"""`jacobians`: of one sequence, with cotangents like the states."""

import jaxbptt as jb
from tests.errors.rows import PARAMS, B, T, assert_refused, d, each, jacobian, n, ones, singles, table

ROWS, row = table()

for name in ("along", "recursion", "written_out", "product"):
    function = getattr(jb.jacobians, name)
    row(
        f"jacobians.{name}-batch",
        ValueError,
        r"Jacobian matrices are of one sequence: got a state with batch axes \(6,\); use `jax.vmap`",
        lambda function=function: jacobian(function, xs=ones(T, B, d), h_0=ones(B, n)),
    )
    row(
        f"jacobians.{name}-h_0",
        ValueError,
        r"`h_0` must have shape .*\(4,\).*got \(5,\)",
        lambda function=function: jacobian(function, h_0=ones(n + 1)),
    )
    row(
        f"jacobians.{name}-T-0",
        ValueError,
        r"`xs` must have at least one step: got T = 0",
        lambda function=function: jacobian(function, xs=ones(0, d)),
    )
for name in ("immediate", "state"):
    function = getattr(jb.jacobians, name)
    row(
        f"jacobians.{name}-batch",
        ValueError,
        r"Jacobian matrices are of one sequence: got a state with batch axes \(6,\)",
        lambda function=function: jacobian(function, xs=ones(B, d), h_0=ones(B, n)),
    )
    row(
        f"jacobians.{name}-x_t",
        ValueError,
        r"`xs` must have shape .*d=3",
        lambda function=function: jacobian(function, xs=ones(d + 1)),
    )
    row(
        f"jacobians.{name}-theta_h",
        TypeError,
        r"`theta_h` must be ElmanParams.*got GRUParams",
        lambda function=function: jacobian(function, xs=ones(d), theta_h=PARAMS["gru"]),
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
