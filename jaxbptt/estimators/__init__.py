"""Estimators of ∂F/∂θ: one file each, all with the signature of `jaxbptt.types.GradientEstimator`.

``init(theta, h_0=None, *, key=None) -> state`` and
``update(theta, state, xs, ys, *, mask=None, lengths=None, key=None) -> (Estimate, state)``.
The chunk given to `update` is T steps: all of them (offline), some (streaming) or one (online).

Two are left out. Synthetic gradients (Jaderberg et al. 2017) need a critic that is trained beside the model: their
error is the critic's, and has no bound that could be stated. FPTT (Kag and Saligrama 2021) changes the objective at
each step: it is an optimiser, not an estimate of ∂F/∂θ.
"""

from jaxbptt.estimators._chunk import NoInfo
from jaxbptt.estimators._kronecker import Kronecker
from jaxbptt.estimators._local import LocalState
from jaxbptt.estimators._rank_one import RankOne
from jaxbptt.estimators._window import TruncatedState
from jaxbptt.estimators.adaptive import AdaptiveInfo, adaptive
from jaxbptt.estimators.bptt import BPTTInfo, BPTTState, bptt
from jaxbptt.estimators.compare import Agreement, Compared, Comparison, compare
from jaxbptt.estimators.eprop import eprop
from jaxbptt.estimators.from_objective import ObjectiveInfo, ObjectiveState, from_objective
from jaxbptt.estimators.kf_rtrl import KFRTRLInfo, KFRTRLState, kf_rtrl
from jaxbptt.estimators.randomised import RandomisedInfo, randomised
from jaxbptt.estimators.rflo import rflo
from jaxbptt.estimators.rtrl import RTRLState, rtrl
from jaxbptt.estimators.snap import SnApState, snap
from jaxbptt.estimators.uoro import UOROInfo, UOROState, uoro
from jaxbptt.estimators.windowed import windowed

__all__ = [
    "AdaptiveInfo",
    "Agreement",
    "BPTTInfo",
    "BPTTState",
    "Compared",
    "Comparison",
    "KFRTRLInfo",
    "KFRTRLState",
    "Kronecker",
    "LocalState",
    "NoInfo",
    "ObjectiveInfo",
    "ObjectiveState",
    "RTRLState",
    "RandomisedInfo",
    "RankOne",
    "SnApState",
    "TruncatedState",
    "UOROInfo",
    "UOROState",
    "adaptive",
    "bptt",
    "compare",
    "eprop",
    "from_objective",
    "kf_rtrl",
    "randomised",
    "rflo",
    "rtrl",
    "snap",
    "uoro",
    "windowed",
]
