"""The check of a readout."""

from typing import Any

import pytest

import jaxbptt as jb
from tests.checking.given import WRONG
from tests.checking.readouts import READOUTS, WRONG_READOUTS

ONE_READOUT: dict[str, Any] = {"seeds": (0,), "sizes": ((3, 3),), "batch_shapes": ((), (2,)), "steps": 2}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", READOUTS)
def test_right_readouts_pass(name):
    report = jb.check_readout(READOUTS[name], **ONE_READOUT)
    wanted = {
        "linear": ["theta_o.W_o", "theta_o.b", "hs"],
        "no-bias": ["theta_o.W_o", "hs"],
        "identity": ["hs"],
        "from_apply": ["theta_o", "hs"],
        "several": ["theta_o['policy']", "theta_o['value'].W_o", "hs"],
    }
    assert [row.leaf for row in report.rows] == wanted[name]
    assert report.cases == 2
    assert "check_readout: 2 cases" in str(report)
    for row in report.rows:
        assert row.autodiff <= report.tolerance < 1e-11
        assert row.differences <= report.difference_tolerance < 1e-7


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", WRONG_READOUTS)
def test_wrong_readouts_are_caught(name):
    pattern, vjp = WRONG_READOUTS[name]
    with pytest.raises(WRONG, match=pattern):
        jb.check_readout(READOUTS["linear"]._replace(vjp=vjp), **ONE_READOUT)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("member", ["vjp", "vjp_over_time"])
def test_both_rules_of_a_readout_are_checked(member):
    readout = READOUTS["from_apply"]
    rule = getattr(readout, member)

    def doubled(*arguments):
        theta_bar, h_bar = rule(*arguments)
        return theta_bar, 2 * h_bar

    with pytest.raises(WRONG, match="h"):
        jb.check_readout(readout._replace(**{member: doubled}), **ONE_READOUT)
