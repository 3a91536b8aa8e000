"""The batch split over devices: CPU cores, GPUs or TPUs of one machine, or of several.

    F = 1/W Σ_s w_s F_s,      ∂F/∂θ = 1/W Σ_s w_s ∂F_s/∂θ,      W = Σ_s w_s

over the shards s of the batch. w_s is the weight of the steps that count in a shard. Each device runs the whole
recursion and its gradient on its own shard. The only communication is the sum over s, once, after the reverse pass.
Left to JAX, the transpose of a replicated θ puts that sum into every step of the reverse scan.
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
    lengths along axis 0. θ is on every device, and so is a leaf without that axis, which all members share. ∂F/∂θ is
    reduced once, at the end. The gradient is computed in the forward pass, as F is a scalar. Reverse mode only. What is
    differentiated comes through θ or ``ys``, never through a closure of the loss ("non-shard_map tracers").

    Args:
        F: from `jaxbptt.objective`, or a function with its attributes (``functools.wraps(F)``) and a value of its own.
        devices: some of ``jax.devices()``, or ``None`` for all there are (on every host).

    Returns:
        F with the same arguments. Its first batch axis must be a multiple of the number of devices. With ``has_aux`` it
        gives the `Aux` of all shards, and no gradient goes through that. The same arguments give the same F.

    Raises:
        TypeError: when F is no objective, or `devices` are not devices. When traced, for a transformed F that is no
            longer one number: transform the result of `data_parallel` instead.
        ValueError: for ``reduction="none"``. When traced, for a batch that the devices don't divide, or inside another
            mesh (``jax.set_mesh``, ``jax.shard_map``): use F itself there.

    Notes:
        ``jax.config.update("jax_num_cpu_devices", n)``, before anything runs, makes devices of a CPU's cores. θ and its
        gradient then lie on all of them. See `jaxbptt.diagnostics` before you hand such a θ to a QR.

        Each device makes the keys of its own members from the same `key`: members of two devices draw alike.

        On several hosts run the same script on each, and begin with ``jax.distributed.initialize()``. ``jax.devices()``
        then holds those of all hosts. ``jax.make_array_from_process_local_data`` makes a batch from each host's part.

        In a ``jax.shard_map`` of your own F is the mean of a shard: differentiate ``jax.lax.pmean(F(*shard), axis)``.
        JAX sums the gradient of a shared θ once, after the recursion. The same holds for `jaxbptt.unroll` and
        `estimators.bptt`, where all axes of the mesh are manual. With `adjoints.tangent` it holds for floating-point
        states. With ``check_vma=False`` differentiate F alone, and average the gradients yourself. With explicit axes,
        take ``jax.sharding.auto_axes(jax.grad(F), out_sharding=P())``.

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
        _divisible_batch(len(self.devices), given, _axes_of(self))
        out: Any = _value(self, *given)
        return out if self.F.has_aux else out[0]


def _mesh(split):
    return Mesh(np.array(split.devices), (_AXIS,))


def _axes_of(split):
    """Which axis is the batch's in θ, xs, ys, h_0, mask, lengths and key."""
    of_F = 0 if split.F.at == "last" else 1
    return (None, 1, of_F, 0, of_F, 0, None)


def _specs(axis, tree):
    """Where the leaves are split. A leaf without the axis is shared by all members."""
    split = P() if axis is None else P(*[None] * axis, _AXIS)
    return jax.tree.map(lambda leaf: split if np.ndim(leaf) >= len(split) else P(), tree)


def _over_shards(split, function, given, out_specs):
    in_specs = tuple(map(_specs, _axes_of(split), given))
    return jax.shard_map(function, mesh=_mesh(split), in_specs=in_specs, out_specs=out_specs, check_vma=False)(*given)


def _aux_specs(split, given):
    if not split.F.has_aux:
        return None
    _, aux = jax.eval_shape(functools.partial(_called, split.F), *given)
    return Aux(_specs(1, aux.y_hats), _specs(0, aux.h_T))


def _called(F, theta, xs, ys, h_0, mask, lengths, key):
    given = {"mask": mask, "lengths": lengths, "key": key}  # an F of the user's own may not take all of them
    return F(theta, xs, ys, h_0, **{name: value for name, value in given.items() if value is not None})


def _local(split, theta, xs, ys, h_0, mask, lengths, key):
    """w_s/W F_s of a shard, and its aux."""
    returned = _called(split.F, theta, xs, ys, h_0, mask, lengths, key)
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

    return _over_shards(split, total, given, (P(), _aux_specs(split, given)))


def _forward(split, *primals):
    given, differentiated = cotangents.unpacked(primals)
    wanted = tuple(k for k, is_wanted in enumerate(differentiated) if is_wanted)

    def value_and_bars(*given):
        def of(*chosen):
            moving = dict(zip(wanted, chosen, strict=True))
            return _local(split, *(moving.get(k, part) for k, part in enumerate(given)))

        (part, aux), pull = cotangents.pullback(of, *(given[k] for k in wanted))
        bars = pull((jnp.ones_like(part), cotangents.zeros(aux)))
        return (lax.psum(part, _AXIS), aux), tuple(map(_summed, of_wanted, bars))  # θ's: the one reduction

    of_wanted = [_specs(_axes_of(split)[k], cotangents.differentiable(given[k])) for k in wanted]
    out, bars = _over_shards(split, value_and_bars, given, ((P(), _aux_specs(split, given)), tuple(of_wanted)))
    by_place = dict(zip(wanted, bars, strict=True))
    return out, tuple(by_place.get(k) for k in range(len(given)))


def _backward(split, bars, out_bars):
    F_bar = out_bars[0]
    if isinstance(F_bar, SymbolicZero):  # only aux was differentiated, and no gradient goes through it
        return jax.tree.map(jnp.zeros_like, bars)
    return jax.tree.map(lambda bar: F_bar.astype(bar.dtype) * bar, bars)


def _summed(specs, bar):
    """The shards' cotangents of a leaf that all have read are summed."""
    if all(len(spec) for spec in jax.tree.leaves(specs)):
        return bar
    return jax.tree.map(lambda spec, leaf: leaf if len(spec) else lax.psum(leaf, _AXIS), specs, bar)


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
    """F returns one number. A transformation of F has its attributes, and may return something else."""
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
    """No other mesh is set."""
    if not context.empty and context != own:
        raise ValueError(
            f"`data_parallel` makes a mesh of its devices: got a call where another one is set, {context.axis_names}; "
            "call it outside of it, or use the objective F itself there, in `jax.shard_map` or with "
            "`jax.sharding.auto_axes(jax.grad(F), out_sharding=…)`"
        )


def _divisible_batch(number, given, axes):
    """All leaves with a batch axis share its size, which is a multiple of the number of devices."""
    first = None
    for name, tree, axis in zip(_NAMES, given, axes, strict=True):
        for path, leaf in jax.tree.leaves_with_path(tree):
            label = f"{name}{jax.tree_util.keystr(path)}"
            if axis is None or np.ndim(leaf) <= axis:
                continue
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
    if first is None:
        raise ValueError(
            f"`xs` must have a batch axis to split, axis 1: got {describe(given[1])}; for what has no batch use F "
            "itself"
        )
