"""Estimators of ∂F/∂θ: one file each, all with the signature of `jaxbptt.types.GradientEstimator`.

``init(theta, h_0=None, *, key=None) -> state`` and
``update(theta, state, xs, ys, *, mask=None, lengths=None, key=None) -> (Estimate, state)``.
The chunk given to `update` is T steps: all of them (offline), some (streaming) or one (online).
"""

from jaxbptt.estimators._kronecker import Kronecker
from jaxbptt.estimators._rank_one import RankOne
from jaxbptt.estimators.adaptive import AdaptiveInfo, AdaptiveState, adaptive
from jaxbptt.estimators.bptt import BPTTInfo, BPTTState, bptt
from jaxbptt.estimators.compare import Agreement, Compared, Comparison, compare
from jaxbptt.estimators.eprop import EPropInfo, EPropState, eprop
from jaxbptt.estimators.from_objective import ObjectiveInfo, ObjectiveState, from_objective
from jaxbptt.estimators.kf_rtrl import KFRTRLInfo, KFRTRLState, kf_rtrl
from jaxbptt.estimators.randomised import RandomisedInfo, RandomisedState, randomised
from jaxbptt.estimators.rflo import RFLOInfo, RFLOState, rflo
from jaxbptt.estimators.rtrl import RTRLInfo, RTRLState, rtrl
from jaxbptt.estimators.snap import SnApInfo, SnApState, snap
from jaxbptt.estimators.uoro import UOROInfo, UOROState, uoro
from jaxbptt.estimators.windowed import WindowedInfo, WindowedState, windowed

__all__ = [
    "AdaptiveInfo",
    "AdaptiveState",
    "Agreement",
    "BPTTInfo",
    "BPTTState",
    "Compared",
    "Comparison",
    "EPropInfo",
    "EPropState",
    "KFRTRLInfo",
    "KFRTRLState",
    "Kronecker",
    "ObjectiveInfo",
    "ObjectiveState",
    "RFLOInfo",
    "RFLOState",
    "RTRLInfo",
    "RTRLState",
    "RandomisedInfo",
    "RandomisedState",
    "RankOne",
    "SnApInfo",
    "SnApState",
    "UOROInfo",
    "UOROState",
    "WindowedInfo",
    "WindowedState",
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
