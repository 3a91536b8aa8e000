"""`closed_form`: of the linear network only."""

import jaxbptt as jb
from jaxbptt.readouts import LinearReadoutParams
from tests.cases import turns
from tests.errors.rows import CLOSED, PARAMS, THETA_O, T, assert_refused, closed, d, each, m, n, ones, table

ROWS, row = table()

for form, (what, changed, kind, pattern) in turns(
    (jb.closed_form.double_sum, jb.closed_form.recursion),
    (
        (
            "bias",
            {"theta": jb.Theta(PARAMS["linear"], THETA_O)},
            TypeError,
            r"closed forms need Theta\(h=LinearParams, o=LinearReadoutParams with b=None\): got Theta\(h=LinearParams, "
            r"o=LinearReadoutParams with a bias\)",
        ),
        (
            "gru",
            {"theta": jb.Theta(PARAMS["gru"], CLOSED.o)},
            TypeError,
            r"closed forms need Theta.*got Theta\(h=GRUParams, o=LinearReadoutParams\); use `jb.rnn\(cells.linear",
        ),
        (
            "W_o",
            {"theta": CLOSED._replace(o=LinearReadoutParams(ones(m, n + 1), None))},
            ValueError,
            r"`theta.o.W_o` must have shape \[m, n\] with the cell's n=4: got \(2, 5\)",
        ),
        ("h_0", {"h_0": ones(n)}, ValueError, r"`h_0` must have shape .*\(6, 4\).*got \(4,\)"),
        ("loss", {"loss": "l2"}, TypeError, r"`loss` must be a function: got str"),
    ),
):
    row(f"{form.__name__}-{what}", kind, pattern, lambda form=form, changed=changed: closed(form, **changed))
row(
    "closed_form.states-theta_h",
    TypeError,
    r"`theta_h` must be LinearParams.*got ElmanParams",
    lambda: jb.closed_form.states(PARAMS["elman"], ones(T, d), ones(n)),
)


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
