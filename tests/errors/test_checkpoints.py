"""What a run keeps: checkpoints, and metrics in files."""

import importlib.util
import pathlib
import tempfile

import jax
import numpy as np
import pytest

import jaxbptt as jb
from tests.errors.rows import BPTT, SGD, B, T, assert_refused, d, each, fit, m, ones, singles, table

ROWS, row = table()

row(
    "fit-checkpoints-of-an-iterable",
    TypeError,
    r"`batches` must be a function of the step with `checkpoints`: got list, .*see `shuffled`",
    lambda: fit(checkpoints=jb.training.Saver(1, lambda step, run: None, lambda run: None)),
)
row(
    "fit-checkpoints",
    TypeError,
    r"`checkpoints` must be a Saver: got str; .*checkpoints.saver\(folder, every=100\)",
    lambda: fit(checkpoints="runs/one"),
)


def in_one_of_two_processes(call):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "process_count", lambda: 2)
        call()


row(
    "checkpoints-processes",
    NotImplementedError,
    r"checkpoints are written by one process: got 2 of `jax.distributed`; keep the run with a `Saver`",
    lambda: in_one_of_two_processes(lambda: jb.training.checkpoints.saver("runs", every=1)),
)
for value in ({"f": len}, {"x": np.nan}, 3):
    row(
        f"saver-about-{type(value).__name__}-{value if value == 3 else next(iter(value))}",
        TypeError,
        r"`about` must be a mapping that JSON can hold, such as flags: ",
        lambda value=value: jb.training.checkpoints.saver("runs", every=1, about=value),
    )


def without(package, call):
    find = importlib.util.find_spec
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith(package) else find(name))
        call()


row(
    "saver-without-orbax",
    ImportError,
    r"this needs orbax-checkpoint, which is not installed: run `pip install orbax-checkpoint`",
    lambda: without("orbax", lambda: jb.training.checkpoints.saver("runs", every=1)),
)
row(
    "tensorboard-without-tensorboardX",
    ImportError,
    r"this needs tensorboardX, which is not installed: run `pip install tensorboardX`",
    lambda: without("tensorboardX", lambda: jb.training.metrics.tensorboard("runs")),
)


def kept(change=lambda folder: None, about=None, tree=None):
    """A checkpoint in a folder that is changed, then restored as another run or tree."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name, "run")
        saver = jb.training.checkpoints.saver(folder, every=1, about={"seed": 0})
        saver.save(3, {"a": singles(2)})
        change(folder)
        saver = jb.training.checkpoints.saver(folder, every=1, about={"seed": 0} if about is None else about)
        saver.restore({"a": singles(2)} if tree is None else tree)


row("restore-about", ValueError, r"is of another run: seed=0 there, 1 here; give the", lambda: kept(about={"seed": 1}))
for name, tree, message in (
    ("shape", {"a": singles(3)}, r"the leaf `\['a'\]` is float32\[2\] there and float32\[3\] here"),
    ("dtype", {"a": ones(2)}, r"the leaf `\['a'\]` is float32\[2\] there and float64\[2\] here"),
    ("more", {"a": singles(2), "b": singles(1)}, r"the leaf `\['b'\]` is absent there and float32\[1\] here"),
    ("fewer", {}, r"the leaf `\['a'\]` is float32\[2\] there and absent here"),
):
    row(f"restore-{name}", ValueError, message, lambda tree=tree: kept(tree=tree))
row(
    "restore-none-good",
    ValueError,
    r"no checkpoint in .* is good: that of step 3 is refused, as its manifest.json.*; remove the folder to begin anew",
    lambda: kept(lambda folder: (folder / "000000000003" / "manifest.json").write_text("{}")),
)


def with_a_file(call):
    """Called with the path of a file that holds something."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"not ours")
        file.flush()
        call(file.name)


row(
    "save-on-a-file",
    OSError,
    r"the checkpoint of step 3 could not be written to .*; there is none before it\. Give a folder that can be",
    lambda: with_a_file(lambda path: jb.training.checkpoints.saver(path, every=1).save(3, {"a": singles(2)})),
)


def in_a_folder_in_use():
    with tempfile.TemporaryDirectory() as folder:
        saver = jb.training.checkpoints.saver(folder, every=1)
        with saver.alone():
            fit(batches=lambda k: (ones(T, B, d), ones(T, B, m)), steps=1, checkpoints=saver)


row(
    "fit-in-a-folder-in-use",
    BlockingIOError,
    r"is in use by another run, of this process or another: .* wait for its end, or give each run a folder of its own",
    in_a_folder_in_use,
)
for name, call in (
    ("folder", lambda value: jb.training.checkpoints.saver(value, every=1)),
    ("path", jb.training.metrics.jsonl),
    ("folder", jb.training.metrics.tensorboard),
):
    for value in (None, 3, b"runs"):
        row(
            f"{name}-{value}-{len(ROWS)}",
            TypeError,
            rf"`{name}` must be a path, as a str or a pathlib.Path: got {type(value).__name__} \({value}\)",
            lambda call=call, value=value: call(value),
        )


def kept_in_memory(steps):
    """Of a run that has made 3 steps."""
    kept = {}
    saver = jb.training.Saver(every=1, save=kept.__setitem__, restore=lambda run: kept[max(kept)] if kept else None)
    for number in (3, steps):
        fit(batches=lambda k: (ones(T, B, d), ones(T, B, m)), steps=number, checkpoints=saver)


def another_key():
    kept, batches = {}, lambda k: (ones(T, B, d), ones(T, B, m))
    saver = jb.training.Saver(every=1, save=kept.__setitem__, restore=lambda run: kept[max(kept)] if kept else None)
    for number in (1, 2):
        fit(batches=batches, steps=number, checkpoints=saver, key=jax.random.key(number))


row(
    "fit-with-another-key-than-kept",
    ValueError,
    r"`key` would be ignored: got one of \[0, 2\] \(.*fry.*\), and .* has its own, of \[0, 1\] \(.*fry.*\); leave",
    another_key,
)


def watched(init, update):
    """The state of an observer, in a run with checkpoints."""
    saver = jb.training.Saver(every=1, save=lambda step, run: None, restore=lambda run: None)
    observer = jb.training.Observer(lambda theta: init, lambda state, progress: (update(state), progress))
    fit(batches=lambda k: (ones(T, B, d), ones(T, B, m)), steps=1, checkpoints=saver, callback=observer)


def another_run_is_kept():
    """A folder with a run's step 3, given to a fit that begins at step 5."""
    kept, batches = {}, lambda k: (ones(T, B, d), ones(T, B, m))
    saver = jb.training.Saver(every=1, save=kept.__setitem__, restore=lambda run: kept[max(kept)] if kept else None)
    fit(batches=batches, steps=3, checkpoints=saver)
    later = fit(batches=batches, steps=5).state
    jb.training.fit(BPTT, SGD, later, batches, steps=9, checkpoints=saver)


row(
    "fit-of-a-later-state-than-kept",
    ValueError,
    r"`checkpoints` must hold a run that began where `theta` is, at step 5: got one at step 3, .*a folder of its own",
    another_run_is_kept,
)
row(
    "fit-fewer-steps-than-kept",
    ValueError,
    r"`steps` must end at or after the step that is kept: got an end at step 2, and `checkpoints` with step 3; ask for",
    lambda: kept_in_memory(2),
)
for name, init, update, message in (
    ("dtype", 0, lambda state: state + 0.5, r"got float64\[\] at `\[0\]` .*, expected what `init` makes, int64\[\]"),
    ("shape", ones(2), lambda state: ones(3), r"got float64\[3\] at `\[0\]` .*, float64\[2\]"),
    ("tree", (), lambda state: (1,), r"got int64\[\] at `\[0\]\[0\]` .*, absent"),
):
    row(
        f"observer-{name}",
        TypeError,
        rf"`update` of an Observer must keep the tree, shapes and dtypes of its state.*: {message}; begin with",
        lambda init=init, update=update: watched(init, update),
    )

# Metrics

row(
    "jsonl-no-folder",
    OSError,
    r"metrics could not be written to `.*nowhere/metrics.jsonl`: FileNotFoundError",
    lambda: fit(callback=jb.training.metrics.jsonl("nowhere/metrics.jsonl")),
)
row(
    "jsonl-of-another-run",
    FileExistsError,
    r"holds 8 bytes of another run: remove it or give another path",
    lambda: with_a_file(lambda path: fit(callback=jb.training.metrics.jsonl(path))),
)


@each(ROWS)
def test_bad_input(wanted):
    assert_refused(wanted)
