"""All contenders. To add one is to add a line to the CONTENDERS of its file, or a file and a line here."""

import jax

from experiments.benchmarks.peers import cudnn_peer, equinox_peer, flax_peers, haiku_peer, ours, plain, torch_peer
from experiments.benchmarks.peers.contender import Built, Contender, LeftOutError
from experiments.benchmarks.peers.work import Work
from experiments.kit import output

OURS: tuple[Contender, ...] = ours.CONTENDERS
PEERS: tuple[Contender, ...] = (
    *plain.CONTENDERS,
    *flax_peers.CONTENDERS,
    *equinox_peer.CONTENDERS,
    *haiku_peer.CONTENDERS,
    *torch_peer.CONTENDERS,
)
GPU_PEERS: tuple[Contender, ...] = cudnn_peer.CONTENDERS


def flags(contenders: tuple[Contender, ...]) -> tuple[str, ...]:
    """What the command line calls them, each once."""
    return tuple(dict.fromkeys(contender.flag for contender in contenders))


def require(contender: Contender, work: Work, number_of_devices: int) -> None:
    """What is known of it without starting anything.

    Raises:
        LeftOutError: when it has no such cell, is not installed, or has nothing to split the batch over.
    """
    if work.cell not in contender.cells:
        raise LeftOutError(f"has no {work.cell} cell")
    if contender.package is not None and output.version(contender.package) is None:
        raise LeftOutError(f"{contender.package} is not installed")
    if contender.split and number_of_devices == 1:
        raise LeftOutError("there is one device to split the batch over")


def build(contender: Contender, work: Work) -> Built:
    """Its `Built` for this work.

    Raises:
        LeftOutError: when it can't: not installed, no such cell, too large, or whatever a library of others raises.
    """
    require(contender, work, jax.device_count())
    try:
        return contender.build(work)
    except LeftOutError:
        raise
    except Exception as error:  # a version of a library that has changed must not end an unattended run
        raise LeftOutError(f"{type(error).__name__}: {error}".splitlines()[0][:200]) from error
