"""Metrics while a run goes on: lines of JSON and TensorBoard events, against the metrics that `fit` returns."""

import json
import pathlib
import struct

import numpy as np
import optax
import pytest

import jaxbptt as jb
from jaxbptt.training import fit, metrics
from tests.training.given import BPTT, GIVEN, SGD, batches, with_nan


def train(callback, **options):
    first, second, *rest = batches(9)
    data = [first, with_nan(second), *rest]
    return fit(BPTT, SGD, GIVEN.theta, data, steps_per_dispatch=4, callback=callback, skip_nonfinite=1, **options)


def test_one_line_a_dispatch_readable_meanwhile(tmp_path):
    path, seen = tmp_path / "metrics.jsonl", []
    measure = jb.training.early_stopping(lambda theta: 0.25, every=8, name="held_out")

    def read(progress):
        seen.append([json.loads(line) for line in path.read_text().splitlines()])

    result = train([measure, metrics.jsonl(path), read])
    assert [len(lines) for lines in seen] == [1, 2, 3]
    loss, norm = result.metrics.loss, result.metrics.gradient_norm
    good = [0, 2, 3]
    np.testing.assert_allclose([line["loss"] for line in seen[-1]], [loss[good].mean(), loss[4:8].mean(), loss[8]])
    np.testing.assert_array_equal(
        [line["gradient_norm"] for line in seen[-1]], [norm[good].max(), norm[4:8].max(), norm[8]]
    )
    assert [line["step"] for line in seen[-1]] == [4, 8, 9]
    assert [line["skipped"] for line in seen[-1]] == [1, 0, 0]
    assert [line.get("held_out") for line in seen[-1]] == [None, 0.25, None]
    assert int(result.observed[1]) == len(path.read_bytes())


def test_what_is_not_finite_is_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    callbacks = [jb.training.early_stopping(lambda theta: np.nan, every=1), metrics.jsonl(path)]
    first = with_nan(batches(1)[0])
    fit(BPTT, SGD, GIVEN.theta, [first], callback=callbacks, skip_nonfinite=1)
    wanted = {"step": 1, "loss": None, "gradient_norm": None, "skipped": 1, "validation_loss": None}
    assert json.loads(path.read_text()) == wanted


def test_lines_of_another_run_are_left_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    train(metrics.jsonl(path))
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"holds [0-9]+ bytes of another run"):
        train(metrics.jsonl(path))
    assert path.read_bytes() == before


def test_a_line_half_written_is_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    observer = metrics.jsonl(path)
    state = observer.init(None)
    seen = []
    train(lambda progress: seen.append(progress))
    state, _ = observer.update(state, seen[0])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 8, "lo')
    observer.update(state, seen[1])
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["step"] for line in lines] == [4, 8]
    path.write_bytes(b"")  # somebody emptied it: training goes on, and so does the file
    observer.update(state, seen[2])
    assert json.loads(path.read_text())["step"] == 9


def test_a_path_that_cannot_be_written_is_found_before_the_first_step(tmp_path):
    taken = []
    for path in (tmp_path, tmp_path / "nowhere" / "metrics.jsonl"):
        with pytest.raises(OSError, match=r"metrics could not be written to .*(directory)"):
            train([metrics.jsonl(path), lambda progress: taken.append(progress.step)])
    assert not taken


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_is_a_clear_error():
    with pytest.raises(OSError, match=r"metrics could not be written to `/dev/full`: No space left"):
        train(metrics.jsonl("/dev/full"))


def events(folder):
    """What TensorBoard reads: a length of 8 bytes, its checksum of 4, an event, its checksum of 4; file by file."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(pathlib.Path(folder).iterdir(), key=lambda path: path.stat().st_mtime_ns):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            yield Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def test_tensorboard_holds_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboardX")
    lines, folder = tmp_path / "metrics.jsonl", tmp_path / "events"
    result = train([metrics.jsonl(lines), metrics.tensorboard(folder)])
    found: dict = {}
    for event in events(folder):
        for value in event.summary.value:
            found.setdefault(event.step, {})[value.tag] = value.simple_value
    assert list(found) == [4, 8, 9]
    for line in map(json.loads, lines.read_text().splitlines()):
        step = line.pop("step")
        assert found[step] == pytest.approx(line, rel=1e-6)
    assert int(result.observed[1]) == 9


def test_tensorboard_forgets_what_is_done_again(tmp_path):
    pytest.importorskip("tensorboardX")
    observer, seen = metrics.tensorboard(tmp_path), []
    train(lambda progress: seen.append(progress))
    observer.begin()
    state, _ = observer.update(observer.init(None), seen[0])
    observer.end()
    (first,) = tmp_path.iterdir()
    first.rename(tmp_path / "a")  # two files within a second would have one name
    observer.update(state, seen[1])
    observer.end()
    second = [event for event in events(tmp_path) if event.HasField("session_log")]
    assert [event.step for event in second] == [5]  # whatever was written from there on is void


def test_tensorboard_forgets_all_of_a_run_that_goes_on_from_its_beginning(tmp_path):
    """Killed before the second checkpoint: that of step 0 is one too."""
    pytest.importorskip("tensorboardX")
    observer, seen = metrics.tensorboard(tmp_path), []
    train(lambda progress: seen.append(progress))
    observer.update(observer.init(None), seen[0])
    observer.end()
    assert [event.step for event in events(tmp_path) if event.HasField("session_log")] == [1]


def test_an_observer_is_ended_by_an_error_too():
    ended = []
    observer = jb.training.Observer(lambda theta: (), lambda state, progress: 1 / 0, end=lambda: ended.append(True))
    with pytest.raises(ZeroDivisionError):
        fit(BPTT, optax.sgd(0.1), GIVEN.theta, batches(1), callback=observer)
    assert ended == [True]
