"""The batch split over devices: CPU cores, GPUs or TPUs of one machine, or of several.

    F = 1/W Σ_s w_s F_s,      ∂F/∂θ = 1/W Σ_s w_s ∂F_s/∂θ,      W = Σ_s w_s

over the shards s of the batch, w_s the number of steps that count in a shard. Each device runs the whole recursion and
its gradient on its own shard; the sum over s is the only communication, once, after the reverse pass. (Left to JAX,
the transpose of a replicated θ puts that sum into every step of the reverse scan.)
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxbptt._algebra import wide
from jaxbptt._errors.words import describe
from jaxbptt._factory import factory
from jaxbptt._trees import cotangents

_AXIS = "batch"


def data_parallel(F: Callable, devices: Sequence[Any] | None = None) -> Callable:
    """The same objective, evaluated with its batch split over `devices`; ``jax.grad`` of it just works.

    Same value and gradient as `F` to rounding. Time-major arrays (xs, ys, mask) are split along axis 1, states and
    lengths along axis 0, θ is on every device. One reduction of ∂F/∂θ at the end, none inside the recursion. The
    gradient is computed in the forward pass, as F is a scalar: the reverse pass only scales it. Reverse mode only. A
    loss that closes over what is differentiated gets JAX's error ("non-shard_map tracers"): hand it in through θ or
    ``ys``.

    To use the cores of a CPU as devices, set ``jax.config.update("jax_num_cpu_devices", n)`` before anything runs. θ
    and its gradient then lie on all of them; see `jaxbptt.diagnostics` before you hand such a θ to a QR.

    Args:
        F: from `jaxbptt.objective`.
        devices: some of ``jax.devices()``, or ``None`` for all there are (on every host).

    Returns:
        ``F(theta, xs, ys, h_0=None, *, mask=None, lengths=None)``, with the first batch axis a multiple of the number
        of devices. The same arguments give the same function.

    Raises:
        TypeError: when F is not from `jaxbptt.objective`, or `devices` are not devices; when traced, for an F that was
            transformed so that it is no longer one number: transform what this returns.
        ValueError: when traced, for a batch that the devices don't divide, or where another mesh is set
            (``jax.set_mesh``, ``jax.shard_map``): there use F itself, as the README says.

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
    return _split_over(F, _devices(jax.devices() if devices is None else devices))


@factory
def _split_over(F: Any, chosen: tuple) -> Callable:
    reduction = F.reduction
    mesh = Mesh(np.array(chosen), (_AXIS,))
    over_time, over_batch = P(None, _AXIS), P(_AXIS)
    specs = (P(), over_time, over_time, over_batch, over_time, over_batch)

    def shard(function, out_specs):
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out_specs, check_vma=False)

    def share(dtype, counted):
        """w_s / W of this shard: F sums over steps, or is a mean over those that count."""
        if reduction == "sum":
            return 1.0
        if counted is None:
            return 1.0 / len(chosen)
        count = jnp.sum(counted, dtype=wide(dtype))  # not an integer: all hosts together may count beyond 2³¹
        return count / jnp.maximum(lax.psum(count, _AXIS), 1)

    def local(theta, xs, ys, h_0, mask, lengths):
        real = {} if lengths is None else {"lengths": lengths}  # an F of the user's own may not take it
        value = _value_of_objective(F(theta, xs, ys, h_0, mask=mask, **real))
        return value * jnp.asarray(share(value.dtype, _counted(xs, mask, lengths))).astype(value.dtype)

    def total(*arguments):
        return lax.psum(local(*arguments), _AXIS)

    @jax.custom_vjp
    def value(*arguments):
        return shard(total, P())(*arguments)

    def forward(*arguments):
        arguments, differentiated = cotangents.unpacked(arguments)
        wanted = tuple(k for k, is_wanted in enumerate(differentiated) if is_wanted)

        def value_and_bars(*arguments):
            def of(*differentiated):
                whole = list(arguments)
                for k, part in zip(wanted, differentiated, strict=True):
                    whole[k] = part
                return local(*whole)

            part, pull = cotangents.pullback(of, *(arguments[k] for k in wanted))
            bars = list(pull(jnp.ones_like(part)))
            if 0 in wanted:
                bars[0] = lax.psum(bars[0], _AXIS)  # the one reduction
            return lax.psum(part, _AXIS), tuple(bars)

        F_value, bars = shard(value_and_bars, (P(), tuple(specs[k] for k in wanted)))(*arguments)
        everything: list[Any] = [None] * len(arguments)
        for k, bar in zip(wanted, bars, strict=True):
            everything[k] = bar
        return F_value, tuple(everything)

    def backward(bars, F_bar):
        return jax.tree.map(lambda bar: F_bar.astype(bar.dtype) * bar, bars)

    value.defvjp(forward, backward, symbolic_zeros=True)

    def split(theta, xs, ys, h_0=None, *, mask=None, lengths=None):
        """F with its batch split over devices: see `jaxbptt.data_parallel`."""
        _no_other_mesh(jax.sharding.get_abstract_mesh(), mesh.abstract_mesh)
        batch_axes = {"xs": (xs, 1), "ys": (ys, 1), "h_0": (h_0, 0), "mask": (mask, 1), "lengths": (lengths, 0)}
        _divisible_batch(len(chosen), **batch_axes)
        return value(theta, xs, ys, h_0, mask, lengths)

    marked: Any = split
    marked.reduction = reduction
    return split


def _objective(value):
    if not callable(value) or not hasattr(value, "reduction"):
        raise TypeError(
            f"`F` must be an objective, whose reduction is known: got {type(value).__name__} ({value!r:.80}); "
            "make one with `jb.objective(model, loss)`"
        )


def _value_of_objective(value):
    """One number. A transformation of F has the attributes of F, and may return something else."""
    if not hasattr(value, "dtype") or np.ndim(value) or not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f"`F` must return one floating-point number, as an array: got {describe(value)}; hand "
            "`data_parallel` the objective itself, and transform what it returns: `jax.vmap(jb.data_parallel(F), …)`, "
            "`jax.value_and_grad(jb.data_parallel(F))`"
        )
    return value


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


def _divisible_batch(number, **arguments):
    """The first batch axis of every leaf is one and the same multiple of the number of devices."""
    first = None
    for name, (tree, axis) in arguments.items():
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


def _counted(xs, mask, lengths):
    """Which steps count, ``[T, *batch]``; ``None``: all."""
    if lengths is None:
        return mask
    t = jnp.arange(len(jax.tree.leaves(xs)[0])).reshape(-1, *(1,) * jnp.ndim(lengths))
    real = t < lengths[None]
    return real if mask is None else mask & real
