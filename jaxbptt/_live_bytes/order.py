"""The order in which a compiler runs the steps:

* a product runs before a loop that it doesn't need;
* what is added to a product is added right after the last one of the same transposed operand;
* a product that sums nothing, as that of ŷ_bar and W_o of one output, is elementwise and runs when it can.
"""

from jaxbptt._live_bytes.step import LOOPS, SUMS, reads_transposed, sums_nothing


def in_order(steps):
    """The same steps, one after the other as they run."""
    return _early_scalings(_early_sums(_early_products(steps)))


def _early_products(steps):
    """Each product behind no more loops than it hangs on, and what it is made of with it."""
    makers, loops = {}, 0
    needs, behind = {}, {}  # of each step: how many loops must run before it, and how many do
    for step in steps:
        needs[id(step)] = max((needs[id(makers[name])] for name in step.read if name in makers), default=0)
        behind[id(step)] = loops
        if step.name in LOOPS:
            loops += 1
            needs[id(step)] = loops
        makers.update(dict.fromkeys(step.written, step))

    for step in reversed(steps):
        if step.name == "dot_general":
            behind[id(step)] = needs[id(step)]
        if step.name not in LOOPS:
            for maker in (makers[name] for name in step.read if name in makers and makers[name].name not in LOOPS):
                behind[id(maker)] = min(behind[id(maker)], behind[id(step)])
    return sorted(steps, key=lambda step: behind[id(step)] + (0.5 if step.name in LOOPS else 0))


def _early_sums(steps):
    """Each sum with a product that reads a transposed operand right after the last of these products."""
    products = {step.written[0]: step.read[0] for step in steps if reads_transposed(step)}
    last = {step.read[0]: k for k, step in enumerate(steps) if reads_transposed(step)}
    made = {name: k for k, step in enumerate(steps) for name in step.written}
    places = [float(k) for k in range(len(steps))]
    for k, step in enumerate(steps):
        added = [name for name in step.read if name in products]
        if step.name in SUMS and len(added) == 1:
            place = last[products[added[0]]]
            if all(made.get(name, -1) <= place for name in step.read):
                places[k] = min(k, place + 0.5)
    return [steps[k] for k in sorted(range(len(steps)), key=places.__getitem__)]


def _early_scalings(steps):
    """Each product that sums nothing right after the last of its operands."""
    made = {name: k for k, step in enumerate(steps) for name in step.written}
    places = [float(k) for k in range(len(steps))]
    for k, step in enumerate(steps):
        if sums_nothing(step):
            places[k] = max((places[made[name]] for name in step.read if name in made), default=-1.0) + 0.25
    return [steps[k] for k in sorted(range(len(steps)), key=places.__getitem__)]
