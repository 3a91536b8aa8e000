"""The flags of ``python -m experiments bench``."""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments.benchmarks.measuring import long, online, ragged
from experiments.benchmarks.peers import contenders
from experiments.benchmarks.peers import work as works
from experiments.kit import options
from experiments.kit.options import BadInputError

What = Literal["speed", "checkpoint", "length", "memory", "long", "estimators", "sequences"]
SHAPES = ("1,1000,32,32", "32,200,64,64", "16,784,1,128", "128,96,128,128", "64,256,256,256", "32,64,512,512")
# A GPU may be there for minutes: first what it is for.
_GPU_FIRST = ("64,512,1024,1024", "64,256,256,256", "8,4096,16,16", "32,64,512,512", "128,96,128,128")
GPU_SHAPES = (*_GPU_FIRST, *(shape for shape in SHAPES if shape not in _GPU_FIRST))
WHAT: tuple[What, ...] = ("speed", "checkpoint", "length", "memory")
GPU_WHAT: tuple[What, ...] = ("checkpoint", "speed", "memory", "length")
LONG = ("lstm,16,100000,64,64,64", "lstm,16,100000,64,64,1", "gru,1,10000000,4,16,1")


@dataclasses.dataclass(frozen=True)
class Config:
    """Loss and gradient of one layer, this library beside its peers, in interleaved rounds of one process."""

    seed: int = 0
    """Of weights, inputs and initial states."""
    quick: bool = False
    """Small shapes and few rounds: the same code in some minutes; its numbers mean little."""
    out: Path | None = None
    """The output folder; results/bench by default."""
    resume: bool = False
    """Go on with the run that was cut off in the output folder."""
    gpu: bool = False
    """On the GPU: cuDNN by torch and by JAX as well, and two more shapes; in another order."""
    what: tuple[What, ...] = WHAT
    """What to measure, in this order; on a GPU the default is in an order of its own. ``long``, ``estimators``
    and ``sequences`` only when asked for."""
    cells: tuple[works.CellName, ...] = ("elman", "gru", "lstm")
    """Of speed."""
    shapes: tuple[str, ...] = SHAPES
    """B,T,d,n of speed, in this order."""
    adjoints: tuple[str, ...] = contenders.flags(contenders.OURS)
    """Of this library."""
    peers: tuple[str, ...] = contenders.flags(contenders.PEERS)
    """Of the others; one that is not installed is left out."""
    rounds: int = 9
    """The most; something slow takes part in fewer of them, as its seconds allow, but in three."""
    seconds: float = 2.5
    """For all rounds of one contender in one row."""
    devices: int | None = None
    """CPU devices; one a core by default."""
    sweep_cell: works.CellName = "lstm"
    """Of checkpoint, length and memory."""
    checkpoint_shape: str = "32,1000,256,256"
    """B,T,d,n of checkpoint."""
    slots: tuple[int, ...] = (10, 20, 30, 50, 100, 200, 500)
    """Of checkpoint."""
    length_shape: str = "4,1,32,32"
    """B,T,d,n of length; its T is not used."""
    lengths: tuple[int, ...] = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
    """T of length."""
    memory_shape: str = "64,256,256,256"
    """B,T,d,n of memory."""
    long: tuple[str, ...] = LONG
    """cell,B,T,d,n,m of long, m outputs."""
    estimators_size: int = online.SIZE
    """n of estimators."""
    sequences_size: int = ragged.SIZE
    """n of sequences."""
    stream: int = 1_000_000
    """Steps of each stream of estimators."""
    markdown: Path | None = None
    """Measures nothing; prints the tables of this result.json as Markdown."""

    def __post_init__(self):
        options.seed(self.seed)
        options.at_least("rounds", self.rounds, 1)
        options.positive("seconds", self.seconds)
        options.positive("slots", *self.slots)
        options.positive("lengths", *self.lengths)
        options.positive("estimators_size", self.estimators_size)
        options.positive("sequences_size", self.sequences_size)
        options.positive("stream", self.stream)
        if self.devices is not None:
            options.at_least("devices", self.devices, 1)
        for name in ("what", "cells", "shapes", "long"):
            if not getattr(self, name):
                raise BadInputError(f"`--{name}` must name something: got nothing")
        for text in (*self.shapes, self.checkpoint_shape, self.length_shape, self.memory_shape):
            works.shape(text)
        for text in self.long:
            long.case(text)
        _known("adjoints", self.adjoints, contenders.flags(contenders.OURS))
        _known("peers", self.peers, contenders.flags((*contenders.PEERS, *contenders.GPU_PEERS)))

    @property
    def contestants(self) -> tuple[contenders.Contender, ...]:
        """Whom the flags name, cuDNN by JAX with `gpu` as well."""
        peers = (*contenders.PEERS, *(contenders.GPU_PEERS if self.gpu else ()))
        asked = (*self.peers, *contenders.flags(contenders.GPU_PEERS)) if self.gpu else self.peers
        own = [contender for contender in contenders.OURS if contender.flag in self.adjoints]
        return (*own, *(contender for contender in peers if contender.flag in asked))

    @property
    def parts(self) -> tuple[What, ...]:
        """Those of the flag, each once; on a GPU in its order where they are the default."""
        return tuple(dict.fromkeys(GPU_WHAT if self.gpu and self.what == WHAT else self.what))

    @property
    def speed_shapes(self) -> tuple[works.Shape, ...]:
        """Those of the flag; on a GPU its own where they are the default."""
        texts = GPU_SHAPES if self.gpu and self.shapes == SHAPES else self.shapes
        return tuple(map(works.shape, texts))


QUICK = {
    "shapes": ("1,100,8,8", "8,50,16,16"),
    "rounds": 3,
    "checkpoint_shape": "2,100,16,16",
    "slots": (5, 20),
    "lengths": (100, 1000),
    "memory_shape": "8,50,16,16",
    "estimators_size": 8,
    "sequences_size": 8,
    "stream": 4000,
    "long": ("lstm,2,300,4,8,4", "gru,1,1000,2,4,1"),
}


def _known(flag, given, known):
    for name in given:
        if name not in known:
            raise BadInputError(f"`--{flag}`: there is no `{name}`: {', '.join(known)} are")
