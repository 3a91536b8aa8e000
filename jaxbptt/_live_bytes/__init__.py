"""How many bytes a traced function holds at once, from its jaxpr alone: nothing is compiled, nothing computed.

`program` has the steps that are left of a jaxpr when what is made twice or for nobody is gone, `order` how they follow
each other; `fusion` says which of their results are arrays at all, `buffers` when each of these is born and dies;
`tally` goes through the steps and into the loops. Each states the rules by which it stands for what a compiler does;
they were read off the buffers that XLA assigned on a CPU.
"""

from jaxbptt._live_bytes.tally import peak

__all__ = ["peak"]
