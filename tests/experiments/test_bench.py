"""The benchmark: everybody computes the same gradient, the clock and the statistics are right, the command runs."""

import json

import jax
import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

from experiments import cli, output
from experiments.benchmarks import (
    checkpoint,
    contenders,
    cudnn_peer,
    length,
    measure,
    ours,
    peak,
    plain,
    report,
    speed,
    summary,
)
from experiments.benchmarks import work as works
from experiments.benchmarks.contender import Built, Contender, LeftOutError
from experiments.benchmarks.speed import Row, Timed
from experiments.options import BadInputError
from jaxbptt.checking import GradientMismatchError
from tests import oracles

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the peers' own

SHAPE = works.Shape(B=4, T=5, d=2, n=3)
CELLS = ("elman", "gru", "lstm")


def silent(*progress):
    pass


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


@pytest.mark.parametrize("reads", ["all", "last"])
@pytest.mark.parametrize("cell", CELLS)
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


EVERYBODY = [
    pytest.param(contender, cell, id=f"{contender.name}-{cell}")
    for contender in (*contenders.OURS, *contenders.PEERS)
    for cell in contender.cells
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
        speed.check(wrong("jax"), work, built, reference)


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


def test_statistics_by_hand():
    assert measure.spread(np.array([1.0, 2.0, 3.0, 4.0, 100.0])) == (3.0, 2.0, 4.0, 5)
    nan = np.nan
    assert measure.ratio(np.array([2.0, 3.0, nan]), np.array([1.0, 2.0, 1.0])) == (1.75, 1.625, 1.875, 2)
    assert measure.geometric_mean([0.5, 2.0, 8.0]) == pytest.approx(2)
    assert works.flops("gru", works.Shape(B=2, T=3, d=5, n=7)) == 3 * 2 * (2 * 3 * 3 * 7 * 5 + 2 * 3 * 3 * 7 * 7)


def test_each_takes_part_in_as_many_rounds_as_its_own_and_in_the_last():
    for rounds in range(1, 12):
        for own in range(1, rounds + 1):
            part = [measure.takes_part(k, own, rounds) for k in range(rounds)]
            assert sum(part) == own
            assert part[-1]


def test_rounds_alternate_and_the_slow_one_has_fewer(monkeypatch):
    """With a clock that only the contenders move."""
    order, now = [], [0.0]

    def contender(name, seconds):
        def call():
            order.append(name)
            now[0] += seconds

        return call

    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    calls = {"a": contender("a", 0.021), "b": contender("b", 0.022), "slow": contender("slow", 0.1)}
    times = measure.interleaved(calls, 7, 0.15, silent)
    monkeypatch.undo()
    assert order[:3] == ["a", "b", "slow"]
    assert len(times["a"]) == 6  # 0.15 / 0.022…
    assert np.isnan(times["a"]).sum() == 0
    assert np.isnan(times["slow"]).sum() == 3
    np.testing.assert_allclose(times["slow"][~np.isnan(times["slow"])], 0.1)
    np.testing.assert_allclose(times["a"], 0.021)
    assert [name for name in order[3:] if name != "slow"] == ["a", "b", "b", "a"] * 3


def test_the_formula_for_steps_is_the_optimum_by_dynamic_programming():
    T, m = 40, 6
    C = np.zeros((T + 1, m + 1), int)
    C[:, 1] = [t * (t + 1) // 2 for t in range(T + 1)]
    for slots in range(2, m + 1):
        C[1, slots] = 1
        for t in range(2, T + 1):
            C[t, slots] = min(y + C[t - y, slots - 1] + C[y, slots] for y in range(1, t))
    for t in range(1, T + 1):
        for slots in range(1, m + 1):
            assert checkpoint.steps(t, slots) + t == C[t, slots]


def row_of(medians, cell="lstm", shape=(64, 256, 256, 256), temporaries=None):
    kinds = {"full": "ours", "full-states": "ours", "full, split": "ours", "torch.nn": "other"}
    timed = {
        name: Timed(
            np.array([0.9, 1.0, 1.1]) * median,
            0.5,
            (temporaries or {}).get(name),
            0.0,
            kinds.get(name, "jax"),
            "split" in name,
            False,
        )
        for name, median in medians.items()
    }
    return Row(cell, works.Shape(*shape), timed, {}, 3e11, 1e11)


def test_ratios_and_marks_by_hand():
    medians = {"full": 0.3, "full-states": 0.35, "full, split": 0.2, "scan": 0.4, "haiku": 0.5, "torch.nn": 0.25}
    temporaries = {"full": 50, "full-states": 30, "scan": 100}
    big = row_of(medians, temporaries=temporaries)
    alone = row_of({"full": 0.6, "scan": 0.5, "torch.nn": 1.2}, cell="elman", shape=(1, 9, 2, 2))
    found = summary.ratios(big)
    assert (found.best_peer, found.best_own) == ("scan", "full, split")
    assert (found.one.median, found.every.median, found.torch.median) == pytest.approx((0.75, 0.5, 0.8))
    assert summary.ratios(alone).every.median == pytest.approx(1.2)  # cannot be split: one device
    means = summary.means([big, alone])
    assert means == pytest.approx(
        {"one": (0.75 * 1.2) ** 0.5, "every": (0.5 * 1.2) ** 0.5, "torch": (0.8 * 0.5) ** 0.5}
    )
    marks = {mark.what.split(":")[0].split(",")[0]: mark for mark in summary.marks([big, alone], None, None, True)}
    assert marks["one device"].measured == "elman 1,9,2,2 (1.20)"
    assert not marks["one device"].met
    assert not marks["all devices / best JAX peer"].met
    assert marks["all devices / torch.nn"].met
    shares = next(mark for mark in summary.marks([big], None, None, True) if mark.what.startswith("temporaries"))
    assert shares.met
    assert shares.measured.startswith("0.30 by full-states")
    slow = row_of(medians | {"full-states": 0.7}, temporaries=temporaries)
    shares = next(mark for mark in summary.marks([slow], None, None, True) if mark.what.startswith("temporaries"))
    assert not shares.met
    low = big.timed["full"]._replace(seconds=np.array([0.15, 0.15, 0.15]), error=0.011, differs=True)
    fast = big._replace(timed=big.timed | {"bfloat16": low})
    assert summary.ratios(fast).best_own == "full, split"  # in float32
    error, speed_up = (mark for mark in summary.marks([fast], None, None, True) if mark.what.startswith("bfloat16"))
    assert error.met
    assert error.measured == "0.0110"
    assert speed_up.measured == "2.00 (mean 2.00)"
    assert len([mark for mark in summary.marks([fast], None, None, False) if mark.what.startswith("bfloat16")]) == 1
    nobody = summary.ratios(row_of({"full": 0.3}))
    assert (nobody.best_peer, nobody.one, nobody.torch) == (None, None, None)


def test_marks_of_the_sweeps_by_hand():
    shape = works.Shape(16, 1000, 256, 256)
    slots = checkpoint.Slots(50, np.array([1.3, 1.4, 1.35]), 8, 1948, 1948, 1979, 0.0)
    found = checkpoint.Checkpointing("lstm", shape, (slots,), np.ones(3), 100)
    equal, time_over_full, kept = summary.marks([], found, None, False)
    assert (equal.met, time_over_full.met, time_over_full.measured) == (True, True, "1.35")
    assert kept.measured == "51 rows; all temporaries 8.0% of full's"
    unequal = found._replace(slots=(slots._replace(steps=1949),), full_seconds=np.full(3, 0.5))
    assert [mark.met for mark in summary.marks([], unequal, None, False)[:2]] == [False, False]

    def points(power, compile_seconds):
        return tuple(length.Point(T, np.full(3, T**power), compile_seconds, 9, 0.0) for T in (100, 1000, 10_000))

    lengths = length.Lengths("lstm", shape, {"full": points(1.0, 1.5), "scan": points(1.0, 1.0)}, {})
    assert [mark.met for mark in summary.marks([], None, lengths, False)] == [True, True, True]
    lengths = lengths._replace(points={"full": points(1.5, 2.5), "scan": points(1.0, 1.0)})
    assert [mark.measured for mark in summary.marks([], None, lengths, False)] == ["1.50", "1.00", "2.50"]
    assert not any(mark.met for mark in summary.marks([], None, lengths, False) if mark.measured != "1.00")


TINY = [
    "--quick", "--cells", "elman", "--shapes", "4,3,2,3", "1,3,2,3", "--adjoints", "full", "--peers", "scan",
    "--rounds", "2", "--sweep-cell", "elman", "--checkpoint-shape", "2,40,3,3", "--slots", "2", "--lengths", "3", "40",
    "--memory-shape", "4,3,2,3",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert cli.main(["bench", *TINY, "--out", str(folder)]) == 0
    return folder


def test_the_quick_form_runs_end_to_end(folder):
    found = json.loads((folder / "result.json").read_text())
    assert {"speed", "checkpoint", "length", "memory", "marks", "verdict", "circumstances"} <= found.keys()
    first, second = found["speed"]["rows"]
    assert first["shape"] == {"B": 4, "T": 3, "d": 2, "n": 3}
    assert {"full", "scan"} <= first["contenders"].keys()
    one = first["contenders"]["full"]
    assert 0 < one["low_ms"] <= one["median_ms"] <= one["high_ms"]
    assert len(one["times_ms"]) == one["rounds"] == 2
    assert one["over_floor"] == pytest.approx(one["median_ms"] / first["floor_ms"])
    assert 0 <= one["gradient_error"] < 1e-5
    assert "full, split" in second["left_out"]
    assert found["speed"]["geometric_means"]["one"] > 0
    (slots,) = found["checkpoint"]["slots"]
    assert slots["formula"] == slots["steps"] == checkpoint.steps(40, 2)
    assert {name: [point["T"] for point in points] for name, points in found["length"]["points"].items()} == {
        name: [3, 40] for name in ("full", "full-states", "checkpointed", "scan")
    }
    assert found["memory"]["peaks"]["full"]["peak"] >= found["memory"]["peaks"]["full"]["before"] > 2**20
    assert found["circumstances"]["machine"]["devices"]
    assert {"jax", "torch", "flax"} <= found["circumstances"]["versions"].keys()
    assert "--slots 2" in found["circumstances"]["settings"]
    for name in ("over_floor", "checkpoint", "length"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "config.json").read_text())["flags"]["peers"] == ["scan"]


def test_the_tables_are_generated_as_markdown(folder, capsys):
    assert cli.main(["bench", "--markdown", str(folder / "result.json")]) == 0
    out = capsys.readouterr().out
    assert "Versions: python " in out
    assert "| full |" in out
    found = json.loads((folder / "result.json").read_text())
    median = found["speed"]["rows"][0]["contenders"]["scan"]["median_ms"]
    assert f"| scan | {report._ms(median)} (" in out
    for line in out.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
    with pytest.raises(BadInputError, match="is no result"):
        report.markdown(folder / "config.json")


def test_a_process_that_fails_is_left_out():
    nobody = Contender("nobody", "jax", plain.reference, flag="nobody")
    found, left_out = peak.peaks(works.make("elman", SHAPE), [nobody], 0, False, None, silent)
    assert not found
    assert left_out == {"nobody": "StopIteration"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shapes", "1,2,3"], "a shape must be four positive integers B,T,d,n such as 64,256,128,32: got `1,2,3`"),
        (["--shapes", "1,2,0,3"], "a shape must be four positive integers B,T,d,n such as"),
        (["--shapes"], "`--shapes` must name something: got nothing"),
        (["--memory-shape", "wide"], "a shape must be four positive integers"),
        (["--cells", "vanilla"], "invalid choice 'vanilla' for argument '--cells'"),
        (["--what", "fame"], "invalid choice 'fame' for argument '--what'"),
        (["--peers", "flaxx"], "`--peers`: there is no `flaxx`: scan, hoisted-scan, nnx, linen, equinox, haiku, torch"),
        (["--adjoints", "fool"], "`--adjoints`: there is no `fool`: full, full-states,"),
        (["--rounds", "0"], "`--rounds` must be at least 1: got 0"),
        (["--seconds", "0"], "`--seconds` must be above 0: got 0.0"),
        (["--slots", "0"], "`--slots` must be above 0: got 0"),
        (["--lengths", "-5"], "`--lengths` must be above 0: got -5"),
        (["--devices", "0"], "`--devices` must be at least 1: got 0"),
        (["--seed", "-1"], "`--seed` must be at least 0: got -1"),
        (["--markdown", "nowhere.json"], "`--markdown`: cannot read `nowhere.json`: No such file"),
    ],
)
def test_bad_flags_are_one_clear_line(arguments, message, capsys):
    assert cli.main(["bench", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: " + message)
    assert err.count("\n") == 1


def test_devices_that_come_too_late_are_one_clear_line(tmp_path, capsys):
    jax.devices()
    number = len(jax.devices()) + 1
    assert cli.main(["bench", "--devices", str(number), "--out", str(tmp_path)]) == 2
    assert (
        f"error: `--devices` comes too late: JAX has started with {number - 1}, got {number}\n"
        in capsys.readouterr().err
    )


def test_a_machine_without_a_gpu_says_so(tmp_path, capsys):
    if jax.default_backend() == "gpu":
        pytest.skip("there is one")
    assert cli.main(["bench", "--gpu", "--out", str(tmp_path)]) == 2
    assert "error: `--gpu` needs a GPU, and JAX finds only cpu: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
