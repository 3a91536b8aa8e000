"""The batch split over devices: CPU cores, GPUs or TPUs of one machine, or of several.

    F = 1/W Σ_s w_s F_s,      ∂F/∂θ = 1/W Σ_s w_s ∂F_s/∂θ,      W = Σ_s w_s

over the shards s of the batch, w_s the weight of the steps that count in a shard. Each device runs the whole recursion
and its gradient on its own shard; the sum over s is the only communication, once, after the reverse pass. (Left to
JAX, the transpose of a replicated θ puts that sum into every step of the reverse scan.)
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxbptt._algebra import wide
from jaxbptt._errors.words import describe, other
from jaxbptt._factory import factory
from jaxbptt._trees import cotangents
from jaxbptt.losses import mean
from jaxbptt.objective import Aux, divisor

_AXIS = "batch"
_NAMES = ("theta", "xs", "ys", "h_0", "mask", "lengths", "key")


def data_parallel(F: Any, devices: Sequence[Any] | None = None) -> "DataParallel":
    """The same objective, evaluated with its batch split over `devices`; ``jax.grad`` of it just works.

    Same value and gradient as `F` to rounding. Time-major arrays (xs, ys, mask) are split along axis 1, states and
    lengths along axis 0, θ is on every device. One reduction of ∂F/∂θ at the end, none inside the recursion. The
    gradient is computed in the forward pass, as F is a scalar: the reverse pass only scales it. Reverse mode only. A
    loss that closes over what is differentiated gets JAX's error ("non-shard_map tracers"): hand it in through θ or
    ``ys``.

    To use the cores of a CPU as devices, set ``jax.config.update("jax_num_cpu_devices", n)`` before anything runs. θ
    and its gradient then lie on all of them; see `jaxbptt.diagnostics` before you hand such a θ to a QR.

    Args:
        F: from `jaxbptt.objective`, or a function with its attributes (``functools.wraps(F)``) and a value of its own.
        devices: some of ``jax.devices()``, or ``None`` for all there are (on every host).

    Returns:
        F with the same arguments, whose first batch axis must be a multiple of the number of devices. With ``has_aux``
        it gives the `Aux` of all shards, through which no gradient goes. The same arguments give the same F.

    Raises:
        TypeError: when F is no objective, or `devices` are not devices; when traced, for an F that was transformed so
            that it is no longer one number: transform what this returns.
        ValueError: for ``reduction="none"``; when traced, for a batch that the devices don't divide, or where another
            mesh is set (``jax.set_mesh``, ``jax.shard_map``): there use F itself, as the README says.

    >>> import jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> F = jb.objective(model, jb.losses.l2_loss)
    >>> arguments = (theta, jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2)))
    >>> split = data_parallel(F, jax.devices()[:1])
    >>> bool(jnp.allclose(split(*arguments), F(*arguments)))
    True
    """
    _objective(F)
    return _data_parallel(F, _devices(jax.devices() if devices is None else devices))


@factory
def _data_parallel(F: Any, devices: tuple) -> "DataParallel":
    return DataParallel(F, devices)


@dataclasses.dataclass(frozen=True)
class DataParallel:
    """F with its batch split over devices, as `data_parallel` makes it.

    >>> import jaxbptt as jb
    >>> F = jb.objective(jb.rnn(jb.cells.elman(), jb.readouts.linear()), jb.losses.l2_loss)
    >>> data_parallel(F).F == F
    True
    """

    F: Any
    devices: tuple

    def __call__(self, theta, xs, ys, h_0=None, *, mask=None, lengths=None, key=None):
        """F with its batch split over devices: see `jaxbptt.data_parallel`."""
        _no_other_mesh(jax.sharding.get_abstract_mesh(), _mesh(self).abstract_mesh)
        given = (theta, xs, ys, h_0, mask, lengths, key)
        _divisible_batch(len(self.devices), given, _specs(self))
        out: Any = _value(self, *given)
        return out if self.F.has_aux else out[0]


def _mesh(split):
    return Mesh(np.array(split.devices), (_AXIS,))


def _specs(split):
    """Where the batch lies in θ, xs, ys, h_0, mask, lengths and key."""
    over_time, over_batch = P(None, _AXIS), P(_AXIS)
    of_F = over_batch if split.F.at == "last" else over_time
    return (P(), over_time, of_F, over_batch, of_F, over_batch, P())


def _over_shards(split, function, out_specs):
    return jax.shard_map(function, mesh=_mesh(split), in_specs=_specs(split), out_specs=out_specs, check_vma=False)


def _aux_specs(split):
    return Aux(P(None, _AXIS), P(_AXIS)) if split.F.has_aux else None


def _local(split, theta, xs, ys, h_0, mask, lengths, key):
    """w_s/W F_s of a shard, and what F has made beside it."""
    given = {"mask": mask, "lengths": lengths, "key": key}  # an F of the user's own may not take all of them
    returned = split.F(theta, xs, ys, h_0, **{name: value for name, value in given.items() if value is not None})
    value, aux = returned if split.F.has_aux else (returned, None)
    _check_value(value)
    if split.F.reduction == "sum":
        return value, aux
    count = divisor(split.F, xs, mask, lengths, wide(value.dtype))  # no integer: all hosts may count beyond 2³¹
    if count is None:
        return value * jnp.asarray(1 / len(split.devices), value.dtype), aux
    return value * mean(count, lax.psum(count, _AXIS)).astype(value.dtype), aux


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _value(split, *given):
    def total(*given):
        value, aux = _local(split, *given)
        return lax.psum(value, _AXIS), aux

    return _over_shards(split, total, (P(), _aux_specs(split)))(*given)


def _forward(split, *primals):
    given, differentiated = cotangents.unpacked(primals)
    wanted = tuple(k for k, is_wanted in enumerate(differentiated) if is_wanted)

    def value_and_bars(*given):
        def of(*chosen):
            moving = dict(zip(wanted, chosen, strict=True))
            return _local(split, *(moving.get(k, part) for k, part in enumerate(given)))

        (part, aux), pull = cotangents.pullback(of, *(given[k] for k in wanted))
        bars = list(pull((jnp.ones_like(part), cotangents.zeros(aux))))
        if 0 in wanted:
            bars[0] = lax.psum(bars[0], _AXIS)  # the one reduction
        return (lax.psum(part, _AXIS), aux), tuple(bars)

    of_bars = tuple(_specs(split)[k] for k in wanted)
    out, bars = _over_shards(split, value_and_bars, ((P(), _aux_specs(split)), of_bars))(*given)
    of_wanted = dict(zip(wanted, bars, strict=True))
    return out, tuple(of_wanted.get(k) for k in range(len(given)))


def _backward(split, bars, out_bars):
    F_bar = out_bars[0]
    if isinstance(F_bar, SymbolicZero):  # of the aux alone, through which no gradient goes
        return jax.tree.map(jnp.zeros_like, bars)
    return jax.tree.map(lambda bar: F_bar.astype(bar.dtype) * bar, bars)


_value.defvjp(_forward, _backward, symbolic_zeros=True)


def _objective(value):
    if not (callable(value) and all(hasattr(value, name) for name in ("reduction", "at", "has_aux"))):
        remedy = "; make one with `jb.objective(model, loss)`"
        raise other("F", "an objective, whose reduction is known", value, remedy)
    if value.reduction == "none":
        raise ValueError(
            "`F` must be one number, to be summed over the devices: got an objective with reduction='none'; "
            'take "mean", "sum" or "sequences"'
        )


def _check_value(value):
    """One number. A transformation of F has the attributes of F, and may return something else."""
    if not hasattr(value, "dtype") or np.ndim(value) or not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f"`F` must return one floating-point number, as an array: got {describe(value)}; hand "
            "`data_parallel` the objective itself, and transform what it returns: `jax.vmap(jb.data_parallel(F), …)`, "
            "`jax.value_and_grad(jb.data_parallel(F))`"
        )


def _devices(value):
    """The devices as a tuple."""
    several = tuple(value) if isinstance(value, Iterable) else ()
    if not several or not all(hasattr(device, "platform") for device in several):
        raise TypeError(f"`devices` must be devices: got {value!r:.80}; take some of `jax.devices()`")
    if len(set(several)) < len(several):
        raise ValueError(f"`devices` must be distinct: got one twice, {value!r:.80}; take some of `jax.devices()`")
    return several


def _no_other_mesh(context, own):
    """The devices are not divided already."""
    if not context.empty and context != own:
        raise ValueError(
            f"`data_parallel` makes a mesh of its devices: got a call where another one is set, {context.axis_names}; "
            "call it outside of it, or use the objective F itself there, in `jax.shard_map` or with "
            "`jax.sharding.auto_axes(jax.grad(F), out_sharding=…)`"
        )


def _divisible_batch(number, given, specs):
    """The first batch axis of every leaf is one and the same multiple of the number of devices."""
    first = None
    for name, tree, spec in zip(_NAMES, given, specs, strict=True):
        if not len(spec):
            continue
        axis = len(spec) - 1
        for path, leaf in jax.tree.leaves_with_path(tree):
            label = f"{name}{jax.tree_util.keystr(path)}"
            if np.ndim(leaf) <= axis:
                raise ValueError(f"`{label}` must have a batch axis to split, axis {axis}: got shape {np.shape(leaf)}")
            if np.shape(leaf)[axis] % number:
                missing = -np.shape(leaf)[axis] % number
                raise ValueError(
                    f"the batch of `{label}` must be a multiple of the {number} devices: got "
                    f"{np.shape(leaf)[axis]} along axis {axis}, which is taken for the batch: for what has no batch "
                    f"use F itself, else pad it by {missing} and give a `mask`, False there"
                )
            first = first or (label, np.shape(leaf)[axis])
            if np.shape(leaf)[axis] != first[1]:
                raise ValueError(
                    f"the batch of `{label}` must be that of `{first[0]}`, {first[1]}: got {np.shape(leaf)[axis]} "
                    f"along axis {axis}; give what all members share a batch axis (`jnp.broadcast_to`)"
                )
