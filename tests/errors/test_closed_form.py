"""`closed_form`: of the linear network only."""

import jaxbptt as jb
from jaxbptt.readouts import LinearReadoutParams
from tests.errors.rows import CLOSED, PARAMS, THETA_O, T, assert_refused, closed, d, each, m, n, ones, table

ROWS, row = table()

for form in (jb.closed_form.double_sum, jb.closed_form.recursion):
    row(
        f"{form.__name__}-bias",
        TypeError,
        r"closed forms need Theta\(h=LinearParams, o=LinearReadoutParams with b=None\): got Theta\(h=LinearParams, "
        r"o=LinearReadoutParams with a bias\)",
        lambda form=form: closed(form, theta=jb.Theta(PARAMS["linear"], THETA_O)),
    )
    row(
        f"{form.__name__}-gru",
        TypeError,
        r"closed forms need Theta.*got Theta\(h=GRUParams, o=LinearReadoutParams\); use `jb.rnn\(cells.linear",
        lambda form=form: closed(form, theta=jb.Theta(PARAMS["gru"], CLOSED.o)),
    )
    row(
        f"{form.__name__}-W_o",
        ValueError,
        r"`theta.o.W_o` must have shape \[m, n\] with the cell's n=4: got \(2, 5\)",
        lambda form=form: closed(form, theta=CLOSED._replace(o=LinearReadoutParams(ones(m, n + 1), None))),
    )
    row(
        f"{form.__name__}-h_0",
        ValueError,
        r"`h_0` must have shape .*\(6, 4\).*got \(4,\)",
        lambda form=form: closed(form, h_0=ones(n)),
    )
    row(
        f"{form.__name__}-loss",
        TypeError,
        r"`loss` must be a function: got str",
        lambda form=form: closed(form, loss="l2"),
    )
row(
    "closed_form.states-theta_h",
    TypeError,
    r"`theta_h` must be LinearParams.*got ElmanParams",
    lambda: jb.closed_form.states(PARAMS["elman"], ones(T, d), ones(n)),
)


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
