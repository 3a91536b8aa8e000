"""The copy curriculum: its symbols are those of a loop in Python, and its order of gradients can fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from experiments.studies import copy_curriculum as study
from experiments.study import silent


def test_a_string_is_shown_asked_for_and_grows_when_it_is_known():
    stream, read = study.start(longest=2, batch_size=3), []
    losses = [0.0] * 3 * 40  # known from the start: the mean falls by a fifth a string
    for k, L_t in enumerate(losses):
        stream, x_t, y_t, is_due = study.symbol(stream, jax.random.key(k))
        read.append((int(stream.length), np.argmax(x_t, axis=-1), np.asarray(y_t), bool(is_due)))
        stream = study.moved(stream, jnp.float32(L_t), is_due)
    strings = 9  # 0.8^9 < 0.15 < 0.8^8
    assert [length for length, *_ in read] == [1] * 3 * strings + [2] * (len(losses) - 3 * strings)
    at = 3 * strings
    while at + 5 <= len(read):
        bits, marker, blanks = read[at : at + 2], read[at + 2], read[at + 3 : at + 5]
        assert not any(is_due for *_, is_due in (*bits, marker))
        assert (marker[1] == 2).all()
        for (_, shown, _, _), (_, blank, asked, is_due) in zip(bits, blanks, strict=True):
            assert is_due
            assert (blank == 3).all()
            assert (shown == asked).all()
        at += 5


def test_what_is_not_learned_does_not_grow():
    stream = study.start(longest=4, batch_size=1)._replace(position=jnp.int32(2), average=jnp.float32(0.151))
    assert int(study.moved(stream, jnp.float32(0.2), jnp.array(True)).length) == 1
    assert int(study.moved(stream, jnp.float32(0.1), jnp.array(True)).length) == 2


def test_the_order_is_judged_by_its_margins():
    near = np.array([0, 1, 0, 1])
    reached = {"RTRL": 20 + near, "SnAp-2": 20 + near, "SnAp-1": 10 + near, "e-prop": 5 + near, "UORO": 4 + near}
    assert study.judge(reached) == "reproduced"
    assert study.judge(reached | {"SnAp-2": 18 + near}).startswith("not reproduced: RTRL and SnAp-2 differ by 4.9")
    assert study.judge(reached | {"UORO": 10 + near}) == (
        "not reproduced: SnAp-1 beats UORO by 0.0 standard errors only"
    )


def test_a_quick_run_trains_with_each(monkeypatch):
    """With one gradient under four names: the others are the same code, and cost seconds to compile."""
    made = study.estimators

    def two(model):
        found = made(model)
        return {name: found["UORO" if name == "UORO" else "SnAp-1"] for name in found}

    monkeypatch.setattr(study, "estimators", two)
    found = study.run(study.Config(**study.STUDY.quick), silent).numbers
    assert list(found["reached"]) == ["RTRL", "SnAp-2", "SnAp-1", "e-prop", "UORO"]
    assert (found["reached"]["RTRL"] == found["reached"]["SnAp-1"]).all()
    assert found["verdict"].startswith("not reproduced: SnAp-2 beats SnAp-1 by 0.0 standard errors only")
    assert max(found["mean"].values()) > 1
