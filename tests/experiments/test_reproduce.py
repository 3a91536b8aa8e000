"""All studies and one report: nothing is lost by a failure, and the page says what the files say."""

import base64
import dataclasses
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

from experiments import cli, output, plots, reproduce, rows, trained
from experiments.catalogue import STUDIES
from experiments.options import BadInputError, NoDataError
from experiments.study import Result, Study, Table, verdict

CLAIM = '‖a_t‖ < |b| & "c" <script>alert(1)</script> | *d*'
CELL = '<img src="http://example.org/a.png"> \x1b[31m'
PUBLISHED = {
    "the <i>norm</i>": {"value": "1/6", "source": "Someone & others (2013), eq. 7", "tag": "read in the paper"},
    "the time": {"value": "17 hours", "source": "a memory", "tag": "recalled, unchecked"},
}
REASON = "the <b>norm</b> is off | by 3 > 2"


@dataclasses.dataclass(frozen=True)
class Flags:
    """Of a study that does next to nothing."""

    seed: int = 0
    quick: bool = False
    out: Path | None = None
    size: int = 4
    data: Path | None = None

    def __post_init__(self):
        assert self.seed != 99


@dataclasses.dataclass(frozen=True)
class NoFileFlags:
    """Of a study that reads no file."""

    seed: int = 0
    quick: bool = False
    out: Path | None = None
    size: int = 4


@dataclasses.dataclass(frozen=True)
class TrainedFlags(Flags):
    """Of a study that trains."""

    resume: bool = False


class Fakes:
    """Studies that write down with which configuration they ran; what one raises can be changed."""

    def __init__(self, **errors):
        self.errors, self.ran = errors, []
        self.studies = tuple(self.study(name) for name in errors)

    def study(self, name, config=Flags):
        def run(config, report):
            self.ran.append((name, config))
            report("working", 1, 1)
            if error := self.errors[name]:
                raise error
            figure, axes = plots.figure(1, 1, width=2, height=1)
            plots.line(axes[0, 0], np.arange(config.size), np.arange(config.size), 0, r"$\rho^k$")
            plots.label(axes[0, 0], '(a) "growth" <b>', "lag $k$", r"$\|h_k\|$")
            table = Table(f"sizes of {name} <", ("what", "value"), (("size", str(config.size)), (CELL, "1.5")))
            numbers = {"verdict": verdict({REASON: name == "worse"}), "published": PUBLISHED}
            return Result(numbers, (table,), {f"of_{name}": figure})

        return Study(name, CLAIM, config, {"size": 2}, run)

    @property
    def names(self):
        return [name for name, _ in self.ran]

    def reproduce(self, out, **flags):
        self.ran.clear()
        return reproduce.reproduce(reproduce.Config(out=out, **flags), ["reproduce", "--x"], self.studies)


class Page(html.parser.HTMLParser):
    """What a browser finds in a page; fails on a tag that is not closed, or closed in the wrong place."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.text, self.cells = [], [], "", []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs)
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data

    def every(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def page(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def table_of(folder):
    """The rows of report.md, split at bars that are not escaped."""
    lines = [line for line in (folder / "report.md").read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines][2:]


def test_all_run_and_a_verdict_is_a_result_not_an_error(tmp_path, capsys):
    fakes = Fakes(better=None, worse=None)
    assert fakes.reproduce(tmp_path, seed=3, quick=True) == 0
    assert fakes.ran == [(name, Flags(3, True, tmp_path / name, 2)) for name in ("better", "worse")]
    recorded = json.loads((tmp_path / "worse" / "config.json").read_text())
    command = f"python -m experiments run worse --quick --seed 3 --out {tmp_path / 'worse'}"
    assert recorded["command"] == command
    assert 0 < recorded["seconds"] < 10
    out = capsys.readouterr().out
    assert f"worse: not reproduced: {REASON} (" in out
    assert (
        f"2 studies: 1 reproduced, 1 not reproduced\nwrote {tmp_path}/report.md\nwrote {tmp_path}/report.html\n" in out
    )
    assert not list(tmp_path.rglob("*.part"))


def test_the_configuration_is_the_one_that_run_would_use():
    for study in STUDIES:
        for flags in ([], ["--quick"]):
            config = reproduce.Config(seed=5, quick=bool(flags), out=Path("results"), only=(study.name,))
            ((chosen, own),) = reproduce.chosen(config, STUDIES)
            assert chosen is study
            assert own == cli._config(study, [*flags, "--seed", "5", "--out", f"results/{study.name}"])


def test_a_failure_loses_no_other_study(tmp_path, capsys):
    fakes = Fakes(a=None, b=ZeroDivisionError("<b>nought</b>\nand more"), c=BadInputError("no data"), d=None)
    assert fakes.reproduce(tmp_path) == 1
    assert fakes.names == ["a", "b", "c", "d"]
    verdicts = [row[2] for row in table_of(tmp_path)]
    assert verdicts == ["reproduced", "failed: ZeroDivisionError: &lt;b>nought&lt;/b>", "failed: no data", "reproduced"]
    assert "raise error" in (tmp_path / "b" / "error.txt").read_text()
    assert not (tmp_path / "c" / "error.txt").exists()  # the line says all
    text = page(tmp_path).text
    assert "4 studies: 2 reproduced, 2 failed" in text
    assert text.count("Traceback (most recent call last)") == 1
    assert "<b>nought</b>\nand more" in text


def test_a_study_without_its_data_is_not_run_and_says_why(tmp_path, capsys):
    fakes = Fakes(a=NoDataError("cannot download it: give `--data PATH`\nand more"), b=None)
    assert fakes.reproduce(tmp_path) == 1
    assert fakes.names == ["a", "b"]
    assert [row[2] for row in table_of(tmp_path)] == [
        r"not run: cannot download it: give \`--data PATH\`",
        "reproduced",
    ]
    assert not (tmp_path / "a" / "error.txt").exists()
    text = page(tmp_path).text
    assert "2 studies: 1 reproduced, 1 not run" in text
    assert "○\xa0not run: cannot download it: give `--data PATH`" in text
    fakes.errors["a"] = None
    assert fakes.reproduce(tmp_path, resume=True) == 0
    assert fakes.names == ["a"]


def test_data_go_to_the_studies_that_read_a_file(tmp_path, capsys):
    fakes, data = Fakes(a=None, b=None), tmp_path / "the data"
    fakes.studies = (fakes.study("a"), fakes.study("b", NoFileFlags))
    assert fakes.reproduce(tmp_path, data=data) == 0
    assert fakes.ran == [("a", Flags(0, False, tmp_path / "a", 4, data)), ("b", NoFileFlags(0, False, tmp_path / "b"))]
    commands = [json.loads((tmp_path / name / "config.json").read_text())["command"] for name in "ab"]
    assert commands[0].endswith(f" --data '{data}'")
    assert "--data" not in commands[1]
    assert fakes.reproduce(tmp_path, resume=True) == 0  # where the file lies makes no difference
    assert fakes.names == []
    with pytest.raises(BadInputError, match="`--data`: none of b reads a file"):
        fakes.reproduce(tmp_path, data=data, only=("b",))


def test_what_failed_does_not_leave_an_earlier_result(tmp_path, capsys):
    fakes = Fakes(a=None)
    assert fakes.reproduce(tmp_path) == 0
    fakes.errors["a"] = RuntimeError("no")
    assert fakes.reproduce(tmp_path) == 1
    assert not (tmp_path / "a" / "result.json").exists()
    fakes.errors["a"] = None
    assert fakes.reproduce(tmp_path, resume=True) == 0
    assert fakes.names == ["a"]
    assert not (tmp_path / "a" / "error.txt").exists()


def test_a_wrong_gradient_says_so(tmp_path, capsys):
    from jaxbptt.checking import GradientMismatchError

    assert Fakes(a=GradientMismatchError("W_h is off\nby much")).reproduce(tmp_path) == 1
    assert table_of(tmp_path)[0][2] == "failed: WRONG GRADIENT: W_h is off"


def test_an_interruption_stops_and_resume_goes_on(tmp_path, capsys):
    fakes = Fakes(a=None, b=KeyboardInterrupt(), c=None)
    assert fakes.reproduce(tmp_path) == 130
    assert fakes.names == ["a", "b"]
    assert [row[2] for row in table_of(tmp_path)] == ["reproduced", "interrupted", "not run"]
    assert "3 studies: 1 reproduced, 1 interrupted, 1 not run" in page(tmp_path).text
    fakes.errors["b"] = None
    assert fakes.reproduce(tmp_path, resume=True) == 0
    assert fakes.names == ["b", "c"]
    assert [row[2] for row in table_of(tmp_path)] == ["reproduced"] * 3
    assert fakes.reproduce(tmp_path) == 0
    assert fakes.names == ["a", "b", "c"]


def test_an_interrupted_training_says_where_it_is_saved(tmp_path, capsys):
    fakes = Fakes(a=trained.InterruptedRunError("interrupted after step 7, which is saved"), b=None)
    assert fakes.reproduce(tmp_path) == 130
    assert fakes.names == ["a"]
    assert table_of(tmp_path)[0][2] == "interrupted: after step 7, which is saved"
    assert "go on with `python -m experiments reproduce --x --resume`\n" in capsys.readouterr().err


def test_a_killed_process_leaves_a_report(tmp_path, monkeypatch, capsys):
    fakes = Fakes(a=None, b=SystemExit("killed"))
    with pytest.raises(SystemExit):
        fakes.reproduce(tmp_path)
    assert [row[2] for row in table_of(tmp_path)] == ["reproduced", "not run"]


def test_resume_runs_again_what_is_not_the_same_or_not_whole(tmp_path, capsys):
    fakes = Fakes(a=None)

    def ran(**flags):
        assert fakes.reproduce(tmp_path, resume=True, **flags) == 0
        return bool(fakes.ran)

    assert ran()
    assert not ran()
    assert ran(seed=1)
    assert ran(quick=True)
    assert ran()
    config = tmp_path / "a" / "config.json"
    recorded = json.loads(config.read_text())
    recorded["flags"] |= {"data": "elsewhere", "out": "elsewhere"}  # where, not what
    config.write_text(json.dumps(recorded))
    assert not ran()
    recorded["flags"]["size"] += 1
    config.write_text(json.dumps(recorded))
    assert ran()
    for name, content in {"result.json": "{", "config.json": "[]", "tables.json": '{"tables": [1]}'}.items():
        (tmp_path / "a" / name).write_text(content)
        assert ran()
        assert not ran()
    (tmp_path / "a" / "of_a.png").unlink()
    assert ran()


def test_a_training_that_was_cut_off_is_told_to_go_on(tmp_path, capsys):
    fakes = Fakes(a=None)
    fakes.studies = (fakes.study("a", TrainedFlags),)
    assert fakes.reproduce(tmp_path) == 0
    assert not fakes.ran[0][1].resume
    assert fakes.reproduce(tmp_path, resume=True) == 0  # the flag itself makes no difference
    assert fakes.names == []
    assert fakes.reproduce(tmp_path, resume=True, seed=1) == 0
    assert fakes.ran[0][1].resume


def test_only_in_the_order_of_the_catalogue_and_each_once(tmp_path, capsys):
    fakes = Fakes(a=None, b=None, c=None)
    assert fakes.reproduce(tmp_path, only=("c", "a", "c")) == 0
    assert fakes.names == ["a", "c"]
    assert [row[0] for row in table_of(tmp_path)] == ["`a`", "`c`"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c", "report.html", "report.md"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--only", "digit"], "`--only`: there is no study `digit`: a are there"),
        (["--only"], "`--only` needs the name of a study"),
        (["--seed", "-1"], "`--seed` must be at least 0: got -1"),
        (["--seed", "many"], "Error parsing --seed: invalid literal for int()"),
        (["--fast"], "Unrecognized options: --fast"),
        (["--out", __file__], "cannot write to the output folder"),
    ],
)
def test_bad_input_is_one_clear_line_before_any_work(flags, message, monkeypatch, capsys, tmp_path):
    fakes = Fakes(a=None)
    monkeypatch.setattr("experiments.catalogue.STUDIES", fakes.studies)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["reproduce", *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: " + message)
    assert err.count("\n") == 1
    assert fakes.ran == []


def test_a_full_disk_is_one_clear_line(monkeypatch, capsys, tmp_path):
    fakes, save = Fakes(a=None), output.save

    def full(path, content):
        if path.name == "report.html":
            raise OSError(28, "No space left on device")
        save(path, content)

    monkeypatch.setattr(output, "save", full)
    monkeypatch.setattr("experiments.catalogue.STUDIES", fakes.studies)
    assert cli.main(["reproduce", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: cannot write `{tmp_path}/report.html`: No space left on device\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report on what is unkind to a page: markup in every text, a failure, a study that was not run."""
    folder = tmp_path_factory.mktemp("reproduce")
    assert Fakes(better=None, worse=None, broken=TypeError(CELL), cut=KeyboardInterrupt(), last=None).reproduce(folder)
    return folder


def test_the_page_is_well_formed_and_loads_nothing(folder):
    found = page(folder)
    tags = {tag for tag, _ in found.found}
    assert not tags & {"script", "iframe", "object", "embed", "form", "video", "audio", "b"}
    assert tags >= {"main", "header", "section", "figure", "figcaption", "caption", "details", "thead", "tbody"}
    links = {attributes[name] for _, attributes in found.found for name in ("src", "href") if name in attributes}
    assert all(link.startswith(("data:", "#")) for link in links)
    assert "url(" not in (folder / "report.html").read_text()
    identities = [attributes["id"] for _, attributes in found.found if "id" in attributes]
    assert len(set(identities)) == len(identities)
    anchors = {link[1:] for link in links if link.startswith("#")}
    assert anchors == {"better", "worse", "broken", "cut", "last"} < set(identities)
    assert {attributes["aria-labelledby"] for attributes in found.every("section")} < set(identities)
    assert len(found.every("table")) == len(found.every("caption"))
    assert {attributes.get("scope") for attributes in found.every("th")} == {"row", "col"}
    assert found.every("html") == [{"lang": "en"}]
    assert found.every("meta")[0] == {"charset": "utf-8"}


def test_the_figures_are_inside_and_said_in_words(folder):
    images = page(folder).every("img")
    assert len(images) == 2
    for image, name in zip(images, ("better", "worse"), strict=True):
        assert image["alt"] == '(a) "growth" <b>: ‖h_k‖ against lag k, of ρ^k.'
        kind, data = image["src"].split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data, validate=True) == (folder / name / f"of_{name}.png").read_bytes()
        assert (image["width"], image["height"]) == ("200", "100")  # 2 in × 1 in at 200 dpi, halved


def test_the_page_says_what_the_files_say(folder):
    found = page(folder)
    verdicts = {
        name: json.loads((folder / name / "result.json").read_text())["verdict"] for name in ("better", "worse")
    }
    assert verdicts["worse"] == f"not reproduced: {REASON}"
    summary = [found.cells[k : k + 4] for k in range(4, 24, 4)]
    assert [row[0] for row in summary] == ["better", "worse", "broken", "cut", "last"]
    assert {row[1] for row in summary} == {CLAIM}
    outcomes = [row[2].replace("\xa0", " ") for row in summary]
    assert outcomes[:2] == [f"✓ {verdicts['better']}", f"✗ {verdicts['worse']}"]
    assert outcomes[2].startswith('! failed: TypeError: <img src="http://example.org/a.png">')
    assert outcomes[3:] == ["! interrupted", "○ not run"]
    assert re.fullmatch(r"\d\.\d s", summary[0][3])
    assert [row[3] for row in summary[2:]] == ["–"] * 3
    recorded = json.loads((folder / "worse" / "config.json").read_text())
    for text in (recorded["command"], recorded["date"], recorded["versions"]["jax"], "sizes of worse <", "--size"):
        assert text in found.text
    assert CELL.replace("\x1b", "\ufffd") in found.cells
    assert "\x1b" not in found.text
    entry = found.cells.index("the <i>norm</i>")
    assert found.cells[entry : entry + 4] == ["the <i>norm</i>", *PUBLISHED["the <i>norm</i>"].values()]
    assert "17 hours" not in found.text  # recalled is not published


def test_markdown_keeps_its_columns(folder):
    lines = table_of(folder)
    assert {len(line) for line in lines} == {4}
    assert lines[1][1] == '‖a_t‖ &lt; \\|b\\| &amp; "c" &lt;script>alert(1)&lt;/script> \\| \\*d\\*'
    assert lines[1][2] == r"not reproduced: the &lt;b>norm&lt;/b> is off \| by 3 > 2"
    head = (folder / "report.md").read_text().split("\n\n")[0]
    assert re.search(r"^Versions: python 3\S+, jaxbptt ", head, re.M)
    assert re.search(r"^Date: \d{4}-\d\d-\d\d\.$", head, re.M)


def test_circumstances_name_every_machine_and_the_span_of_days(folder):
    found = rows.read(folder / "better")
    other = found._replace(date="2031-01-02T00:00:00", machine={**found.machine, "cores": 77})
    where = rows.circumstances([rows.Row("a", "", "ran", one) for one in (found, other, found)] + [rows.Row("b", "")])
    assert [len(where[name]) for name in ("machine", "versions", "date")] == [2, 1, 1]
    assert where["date"] == [f"{found.date[:10]} to 2031-01-02"]
    assert rows.circumstances([rows.Row("b", "")]) == {"machine": [], "versions": [], "date": []}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    import jax

    folder = tmp_path_factory.mktemp("real")
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        flags = ["--quick", "--only", "vanishing_exploding", "--out", str(folder)]
        assert cli.main(["reproduce", *flags]) == 0
    return folder


def test_a_real_study_end_to_end(real):
    found = page(real)
    assert "✓\xa0reproduced" in found.cells
    (image,) = found.every("img")
    assert "(f) sigmoid; thin: the bound" in image["alt"]
    assert not re.search(r"[$\\{}]", image["alt"])
    assert "linear: ‖∂h_t/∂h_k‖ = ρ^(t-k)" in found.cells
    assert table_of(real)[0][3].endswith(" s (quick)")
    again = json.loads((real / "vanishing_exploding" / "result.json").read_text())
    assert again["verdict"] == table_of(real)[0][2] == "reproduced"


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ("quic", "background-networking", "component-update", "sync", "gpu")
HEADLESS = ["--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in QUIET)]


def browse(path, profile):
    """The page as the browser has it, and what it says about it."""
    command = [BROWSER, *HEADLESS, f"--user-data-dir={profile}", "--enable-logging=stderr", "--dump-dom", path.as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0
    return ran.stdout, [line for line in ran.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("which", ["folder", "real"])
def test_a_browser_shows_it(which, request, tmp_path):
    folder = request.getfixturevalue(which)
    text, complaints = browse(folder / "report.html", tmp_path)
    assert complaints == []
    shown, written = Page(text), page(folder)
    assert shown.cells == written.cells
    assert [attributes["alt"] for attributes in shown.every("img")] == [a["alt"] for a in written.every("img")]
    for name in ("better", "worse") if which == "folder" else ("vanishing_exploding",):
        assert json.loads((folder / name / "result.json").read_text())["verdict"] in shown.text


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_the_browser_refuses_what_the_page_does_not_hold(folder, tmp_path):
    """Were something foreign to get in: it isn't asked for, and the test above would see the complaint."""
    path = tmp_path / "page.html"
    foreign = '<img alt="" src="http://127.0.0.1:9/a.png"><script>document.title = "ran"</script>'
    path.write_text((folder / "report.html").read_text().replace("<main>", f"<main>{foreign}"))
    text, complaints = browse(path, tmp_path / "profile")
    assert len([line for line in complaints if "Content Security Policy" in line]) == 2
    assert "<title>ran" not in text
