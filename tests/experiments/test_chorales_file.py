"""The file of the chorales: where it is found, its download, and what is said of one that is damaged or another."""

import contextlib
import http.server
import threading

import jax
import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")
pytest.importorskip("orbax.checkpoint")
pytest.importorskip("scipy")
pytest.importorskip("pooch")

import pooch
from scipy import io

from experiments.kit import fetched
from experiments.kit.options import NoDataError
from experiments.runner import cli
from experiments.studies.chorales import music

QUICK = ["run", "chorales", "--quick", "--out"]


def test_the_file_is_found_by_its_path_and_by_its_folder(chorales_file, rolls):
    for path in (chorales_file, chorales_file.parent, str(chorales_file)):
        for a, b in zip(jax.tree.leaves(music.load(music.JSB, path)), jax.tree.leaves(rolls), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == np.float32


@pytest.fixture
def damaged(tmp_path, chorales_file):
    """Files that are not the published one, by what is wrong with them."""
    content = bytearray(chorales_file.read_bytes())
    content[-1] ^= 1
    (tmp_path / "changed.mat").write_bytes(content)
    (tmp_path / "text.mat").write_text("<html>not here</html>")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.mat", r"`--data`: cannot read `.*none.mat`: No such file or directory\. Download http.* `--data PATH`"),
        ("text.mat", r"`.*text.mat` is not a .mat file: download http.* and give it with `--data PATH`"),
        (
            "changed.mat",
            r"`.*changed.mat` is not the published JSB_Chorales.mat: its SHA-256 begins \w{12}, not \w",
        ),
    ],
)
def test_a_file_that_is_not_the_published_one_is_one_clear_line(name, message, damaged, capsys):
    assert cli.main([*QUICK, str(damaged / "out"), "--data", str(damaged / name)]) == 2
    err = capsys.readouterr().err.split("\n", 1)[1].splitlines()  # the first line was that of the progress bars
    assert len(err) == 1
    with pytest.raises(NoDataError, match=message):
        music.load(music.JSB, damaged / name)
    assert err[0].startswith("error: `")


def test_without_a_network_it_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cli.main([*QUICK, str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err.lstrip()
    assert err.startswith("error: cannot download JSB_Chorales.mat (")
    assert err.endswith("). Download http://127.0.0.1:9/nothing and give it with `--data PATH`\n")
    assert cli.main(["reproduce", "--quick", "--only", "chorales", "--out", str(tmp_path / "all")]) == 1
    assert "chorales: not run: cannot download JSB_Chorales.mat (" in capsys.readouterr().out


@pytest.fixture
def server():
    """``server(content)``: a source that sends it, and a list of how often it was asked."""
    with contextlib.ExitStack() as stack:

        def serve(content):
            asked = []

            class Answer(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    asked.append(self.path)
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(content)

                def log_message(self, *_):
                    pass

            here = stack.enter_context(http.server.HTTPServer(("127.0.0.1", 0), Answer))
            threading.Thread(target=here.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(here.shutdown)
            return music.JSB._replace(url=f"http://127.0.0.1:{here.server_port}/some.mat"), asked

        yield serve


def test_a_download_is_checked_kept_and_not_repeated(tmp_path, monkeypatch, chorales_file, server):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept, content = tmp_path / "jaxbptt" / "JSB_Chorales.mat", chorales_file.read_bytes()
    source, _ = server(b"something else")
    with pytest.raises(NoDataError, match=r"what http:.* sent is not the published JSB_Chorales.mat\. Download http"):
        fetched.content(source)
    assert not list(kept.parent.iterdir())
    source, asked = server(content)
    for _ in range(2):
        assert fetched.content(source) == (content, f"`{kept}`")
    assert len(asked) == 1
    kept.write_bytes(b"torn")
    assert fetched.content(source) == (content, f"`{kept}`")
    assert kept.read_bytes() == content
    assert len(asked) == 2


def test_a_cache_that_cannot_be_written_to_costs_nothing_else(tmp_path, monkeypatch, chorales_file, server):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    source, _ = server(chorales_file.read_bytes())
    assert fetched.content(source)[0] == chorales_file.read_bytes()


def test_no_home_is_said(monkeypatch):
    monkeypatch.setattr(pooch, "os_cache", lambda project: f"~/.cache/{project}")
    with pytest.raises(NoDataError, match="no home folder to keep a download in: set XDG_CACHE_HOME, or give the file"):
        fetched.cache()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"testdata": None}, "is not a .mat file of piano rolls (KeyError: 'testdata')"),
        ({"validdata": [np.zeros((5, 87))]}, "has a piece of shape (5, 87) in `validdata`: each is [T, 88] with T ≥ 2"),
        ({"traindata": [np.zeros((1, 88))]}, "has a piece of shape (1, 88) in `traindata`: each is [T, 88] with T ≥ 2"),
        ({"traindata": []}, "has no piece in `traindata`"),
        ({"testdata": [np.full((3, 88), 2)]}, "has something other than 0 and 1 in `testdata`"),
    ],
)
def test_a_mat_file_of_something_else_is_refused(change, message, tmp_path):
    arrays = {}
    for name, pieces in ({f"{part}data": [np.zeros((4, 88))] for part in music.Rolls._fields} | change).items():
        if pieces is not None:
            arrays[name] = np.empty((1, len(pieces)), object)
            arrays[name][0] = pieces
    io.savemat(tmp_path / "some.mat", arrays)
    with pytest.raises(NoDataError) as caught:
        music.read((tmp_path / "some.mat").read_bytes())
    assert message in str(caught.value)


def test_a_torn_mat_file_is_refused(chorales_file):
    content = chorales_file.read_bytes()
    with pytest.raises(NoDataError, match=r"`it` is not a .mat file of piano rolls \("):
        music.read(content[: len(content) // 2], "`it`")
