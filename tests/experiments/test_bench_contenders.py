"""Everybody in the benchmark computes the same gradient; who is wrong or cannot do the work is left out."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.benchmarks.measuring import checkpoint, length, peak, side_by_side, speed
from experiments.benchmarks.peers import contenders, cudnn_peer, ours, plain
from experiments.benchmarks.peers import work as works
from experiments.benchmarks.peers.contender import Built, Contender, LeftOutError
from experiments.kit import output
from experiments.study import silent
from jaxbptt.checking import GradientMismatchError
from tests import oracles

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the peers' own

ROOT = pathlib.Path(__file__).parents[2]
SHAPE = works.Shape(B=4, T=5, d=2, n=3)
CELLS = ("elman", "gru", "lstm")


def step(cell, W, x, state):
    """One step in NumPy, for complex numbers; "gru, reset before" is haiku's."""
    sigmoid = oracles.sigmoid
    z = x @ W["W_x"].T + W["b"]
    if cell == "elman":
        return (np.tanh(z + state[0] @ W["W_h"].T),)
    if cell == "lstm":
        i, f, g, o = np.split(z + state[0] @ W["W_h"].T, 4, axis=-1)
        c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    (h,) = state
    u_r, u_z, u_n = np.split(z, 3, axis=-1)
    W_r, W_z, W_n = np.split(W["W_h"], 3)
    b_r, b_z, b_n = np.split(W["b_h"], 3)
    r, z = sigmoid(u_r + h @ W_r.T + b_r), sigmoid(u_z + h @ W_z.T + b_z)
    n = u_n + r * (h @ W_n.T + b_n) if cell == "gru" else u_n + (r * h) @ W_n.T
    return ((1 - z) * np.tanh(n) + z * h,)


def oracle(cell, work):
    """F and its gradient by the complex step, by the names of a `Gradient`."""
    names = [*work.weights, "xs", "h_0", "c_0"][: len(work.weights) + 1 + len(work.h_0)]

    def F(arrays):
        named = dict(zip(names, arrays, strict=True))
        state = tuple(named[name] for name in ("h_0", "c_0") if name in named)
        hs = []
        for x in named["xs"]:
            state = step(cell, named, x, state)
            hs.append(state[0])
        hs = np.array(hs)
        return np.mean(hs * hs) if work.reads == "all" else np.mean(hs[-1] * hs[-1])

    arrays = [*work.weights.values(), work.xs, *work.h_0]
    found = dict(zip(names, oracles.gradient(F, arrays), strict=True))
    found["F"] = F([np.asarray(array, complex) for array in arrays]).real
    if "b_h" in found:
        found["b_hn"] = found.pop("b_h")[2 * work.shape.n :]
    return found


@pytest.mark.parametrize(("cell", "reads"), [("elman", "last"), ("gru", "all"), ("lstm", "last")])
def test_the_reference_is_the_complex_step(cell, reads):
    work = works.make(cell, SHAPE, reads=reads)
    wanted, found = oracle(cell, work), plain.reference(work)
    assert found.keys() == wanted.keys()
    assert max(works.errors(found, wanted).values()) < 1e-5
    assert min(np.linalg.norm(value) for value in found.values()) > 1e-4


def test_the_reference_for_a_reset_before_the_product():
    work = works.make("gru", SHAPE)
    wanted = oracle("gru, reset before", work)
    found = plain.reference(work, reset_before=True)
    assert found.keys() == wanted.keys() - {"b_hn"}
    assert max(works.errors(found, wanted).values()) < 1e-5
    assert max(works.errors(found, plain.reference(work)).values()) > 1e-2  # another function


def test_the_references_products_are_in_full_where_others_are_rounded(monkeypatch):
    """On a GPU; here it shows in the program."""
    programs, compiled = [], plain.compiled

    def seen(F, arguments, *rest):
        programs.append(str(jax.make_jaxpr(jax.grad(F))(*arguments)))
        return compiled(F, arguments, *rest)

    monkeypatch.setattr(plain, "compiled", seen)
    work = works.make("elman", SHAPE)
    plain.reference(work)
    contenders.build(contenders.PEERS[0], work)
    of_the_reference, of_a_peer = (program.count("precision=(Precision.HIGHEST") for program in programs)
    assert of_the_reference == programs[0].count("dot_general") > 0
    assert of_a_peer == 0


# Each peer maps the weights of each cell by itself. Ours share one mapping: the first has all cells, others one each.
EVERYBODY = [
    pytest.param(contender, cell, id=f"{contender.name}-{cell}")
    for k, contender in enumerate((*contenders.OURS, *contenders.PEERS))
    for cell in (contender.cells if contender.kind != "ours" or k == 0 else CELLS[k % 3 : k % 3 + 1])
]


@pytest.mark.parametrize(("contender", "cell"), EVERYBODY)
def test_everybodys_gradient_is_the_references(contender, cell):
    if contender.package is not None and output.version(contender.package) is None:
        pytest.skip(f"{contender.package} is not installed")
    if contender.split and len(jax.devices()) == 1:
        pytest.skip("needs two devices")
    work = works.make(cell, SHAPE)
    built = contenders.build(contender, work)
    found = built.gradient(built.wait(built.run()))
    reference = plain.reference(work, cell in contender.differs)
    assert {"F", "W_x", "W_h", "b", "xs", "h_0"} <= found.keys() <= reference.keys()
    assert ("c_0" in found) == (cell == "lstm")
    assert {name: value.shape for name, value in found.items()} == {name: reference[name].shape for name in found}
    assert max(works.errors(found, reference).values()) < (1e-5 if contender.tolerance is None else 2e-2)
    if contender.flag != "torch":
        assert built.compile_seconds > 0
        assert built.temporaries > 0


def test_cudnns_layout_is_ours(monkeypatch):
    """Where there is no cuDNN: with the reference that JAX tests cuDNN against in its place."""
    from jax.experimental import rnn

    def lstm(x, h_0, c_0, weights, lengths, *sizes):
        return rnn.lstm_ref(x, h_0, c_0, *rnn.unpack_lstm_weights(weights, *sizes[:3], sizes[-1]), lengths, *sizes)

    monkeypatch.setattr(rnn, "lstm", lstm)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    work = works.make("lstm", SHAPE)
    built = contenders.build(cudnn_peer.CONTENDERS[0], work)
    found, reference = built.gradient(built.wait(built.run())), plain.reference(work)
    assert found.keys() == reference.keys()
    assert {name: value.shape for name, value in found.items()} == {name: reference[name].shape for name in found}
    assert max(works.errors(found, reference).values()) < 1e-5


def wrong(kind):
    """A contender whose F is off."""

    def build(work):
        gradient = plain.reference(work)
        return Built(
            lambda: None, lambda result: result, lambda result: gradient | {"F": gradient["F"] * 1.01}, None, None
        )

    return Contender("wrong", kind, build, flag="wrong")


def test_a_wrong_peer_is_left_out_and_a_wrong_gradient_of_ours_stops_the_run():
    work = works.make("elman", SHAPE)
    scan = contenders.PEERS[0]
    row = speed.row(work, (scan, wrong("jax")), 1, 0.01, silent)
    assert list(row.timed) == ["scan"]
    assert row.left_out["wrong"].startswith("the F of wrong (elman 4,5,2,3) is off the plain scan's by 1.0e-02")
    with pytest.raises(GradientMismatchError, match="the F of wrong"):
        speed.row(work, (wrong("ours"),), 1, 0.01, silent)


def test_a_gradient_that_is_nan_is_wrong():
    work = works.make("elman", SHAPE)
    reference = plain.reference(work)
    built = Built(lambda: 0, lambda r: r, lambda r: reference | {"xs": reference["xs"] * np.nan}, None, None)
    with pytest.raises(LeftOutError, match="the xs of wrong"):
        side_by_side.check(wrong("jax"), work, built, reference)


def test_who_cannot_do_the_work_is_left_out_with_the_reason(monkeypatch):
    def raises(work):
        raise TypeError("scan() got an unexpected keyword argument\nand more")

    base = Contender("other", "jax", raises, flag="other")
    work = works.make("elman", SHAPE)
    for contender, reason in (
        (base, "TypeError: scan() got an unexpected keyword argument"),
        (base._replace(package="no-such-distribution"), "no-such-distribution is not installed"),
        (base._replace(cells=("gru",)), "has no elman cell"),
        (next(c for c in contenders.OURS if c.split), None),
        (cudnn_peer.CONTENDERS[0]._replace(cells=CELLS), "needs a GPU"),
    ):
        odd = works.make("elman", SHAPE._replace(B=3)) if reason is None else work
        with pytest.raises(LeftOutError) as caught:
            contenders.build(contender, odd)
        assert str(caught.value) == reason or "device" in str(caught.value)
    monkeypatch.setattr(ours, "PARALLEL_BYTES", 100)
    with pytest.raises(LeftOutError, match="the matrices c_t would take"):
        contenders.build(next(c for c in contenders.OURS if c.flag == "parallel"), work)


def test_a_process_that_fails_is_left_out():
    nobody = Contender("nobody", "jax", plain.reference, flag="nobody")
    with pytest.raises(LeftOutError, match="StopIteration"):
        peak.peak(works.make("elman", SHAPE), nobody, 0, False, None)


def test_the_answer_of_a_process_is_found_among_what_libraries_print(monkeypatch):
    """And counts whatever becomes of the process after it."""
    found = peak.Peak(1, 2, None, None)
    out = f"NCCL version\n{peak._ANSWER}{json.dumps(found._asdict())}\nNCCL INFO\n"
    ran = subprocess.CompletedProcess([], returncode=-6, stdout=out, stderr="terminate called")
    monkeypatch.setattr(peak.subprocess, "run", lambda *command, **how: ran)
    assert peak.peak(works.make("elman", SHAPE), contenders.PEERS[0], 0, False, None) == found
    ran.stdout = "NCCL version\n"
    with pytest.raises(LeftOutError, match="terminate called"):
        peak.peak(works.make("elman", SHAPE), contenders.PEERS[0], 0, False, None)


def test_a_process_ends_with_the_one_that_asked_it():
    """The test waits for the end of a pipe that both hold."""
    asked = "import os, sys; from experiments.benchmarks.measuring import peak; "
    asked += "print('here', flush=True); peak._end_with({})"
    asks = f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {asked!r}.format(os.getpid())])"
    with subprocess.Popen([sys.executable, "-c", asks], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "here\n"
        parent.kill()
        parent.communicate(timeout=60)


def broken(name):
    """A contender that can't be built."""

    def build(work):
        raise MemoryError("of the device")

    return Contender(name, "ours", build, flag=name)


def test_a_number_of_slots_that_fails_loses_no_other():
    work = works.make("elman", SHAPE._replace(T=12), reads="last")
    full, two, three = checkpoint.contestants((3, 2))
    found = checkpoint.at(work, (full, broken(two.name), three), 1, 0.01, silent)
    assert found.left_out == {"2": "MemoryError: of the device"}
    beside_full = checkpoint.beside_full(work, found)
    assert [one.slots for one in beside_full.slots] == [3]
    assert beside_full.left_out == found.left_out
    with pytest.raises(LeftOutError, match="full: MemoryError: of the device"):
        checkpoint.at(work, (broken("full"), two), 1, 0.01, silent)


def test_a_length_at_which_all_fail_loses_no_other():
    shorter, longer = (works.make("elman", SHAPE._replace(T=T), reads="last") for T in (3, 4))
    scan = contenders.PEERS[0]
    found = [
        length.at(shorter, (scan,), 1, 0.01, silent),
        length.at(longer, (broken("scan"),), 1, 0.01, silent),
    ]
    together = length.together("elman", SHAPE, found)
    assert [point.T for point in together.points["scan"]] == [3]
    assert together.left_out == {"scan, T = 4": "MemoryError: of the device"}
