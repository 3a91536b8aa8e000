"""The protocol that every estimator shares: check the arguments, and find the state a chunk starts from.

init(theta, h_0=None, *, key=None) -> state
update(theta, state, xs, ys, *, mask=None, lengths=None, key=None) -> (Estimate, state)
"""

from typing import NamedTuple

from jaxbptt import _axes, objective
from jaxbptt._errors import arguments, trees
from jaxbptt._trees import cotangents
from jaxbptt.layers import network
from jaxbptt.types import Model, Theta


class NoInfo(NamedTuple):
    """Nothing to look at: the state holds all there is.

    >>> len(NoInfo())
    0
    """


def check_factory(model, loss, reduction):
    """Checks the arguments of a factory of estimators."""
    if not (isinstance(model, Model) and callable(loss) and reduction in ("mean", "sum")):
        arguments.model(model)
        arguments.callable_argument("loss", loss)
        arguments.one_of("reduction", reduction, ("mean", "sum"), "weigh the loss itself for anything else")


def of_one_cell(who, model):
    """What goes from step to step wants a causal cell of all layers, with nothing dropped between them."""
    network.undisturbed(who, model)


def begin(model, loss, theta, h, xs, ys, mask, lengths, key):
    """The chunk as `objective.Given`, and the pullback of its h_0, ``h_0_bar -> θ_h_bar``: h_0 may be learned."""
    if not isinstance(theta, Theta):
        trees.theta(theta)
    start = _axes.beginning(model, theta, h, xs, ys, mask, lengths)
    h_0, pull = cotangents.pullback(start, theta.h)
    given = objective.check(model, loss, theta, xs, ys, h_0, mask, lengths, key)
    return given, lambda h_0_bar: pull(h_0_bar)[0]
