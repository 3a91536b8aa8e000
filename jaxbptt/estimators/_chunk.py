"""What every estimator does with a chunk: look at it, find where it begins, sum or average. One place for the protocol.

init(theta, h_0=None, *, key=None) -> state
update(theta, state, xs, ys, *, mask=None, lengths=None, key=None) -> (Estimate, state)
"""

from jaxbptt import _axes, objective
from jaxbptt._errors import arguments, trees
from jaxbptt._trees import cotangents
from jaxbptt.types import Model, Theta


def check_factory(model, loss, reduction):
    """What an estimator is made of."""
    if not (isinstance(model, Model) and callable(loss) and reduction in ("mean", "sum")):
        arguments.model(model)
        arguments.callable_argument("loss", loss)
        arguments.one_of("reduction", reduction, ("mean", "sum"), "weigh the loss itself for anything else")


def begin(model, loss, theta, h, xs, ys, mask, lengths, key):
    """The chunk as `objective.Given`, and the pullback of its h_0, which may be learned: ``h_0_bar -> θ_h_bar``."""
    if not isinstance(theta, Theta):
        trees.theta(theta)
    start = _axes.beginning(model, theta, h, xs, ys, mask, lengths)
    h_0, pull = cotangents.pullback(start, theta.h)
    given = objective.check(model, loss, theta, xs, ys, h_0, mask, lengths, key)
    return given, lambda h_0_bar: pull(h_0_bar)[0]
