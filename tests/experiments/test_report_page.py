"""The report of all studies, as a page and as Markdown, says what the files say, whatever stands in them."""

import base64
import json
import re
import shutil
import subprocess

import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

from experiments.runner import cli, rows
from tests.experiments.fake_studies import CELL, CLAIM, PUBLISHED, REASON, Fakes
from tests.experiments.reports import Page, page, table_of


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


def test_the_summary_fits_its_page(folder):
    """Its columns have the widths that are given, whatever stands in them, and words break anywhere."""
    style = re.search(r"<style>(.*?)</style>", (folder / "report.html").read_text(), re.S)[1]
    (rule,) = re.findall(r"\.summary \{(.*?)\}", style)
    assert {"width: 100%", "table-layout: fixed", "overflow-wrap: anywhere"} <= {one.strip() for one in rule.split(";")}
    assert not re.search(r"\.summary [^{]*\{[^}]*(min-width|nowrap)", style)
    shares = [int(share) for share in re.findall(r"\.summary th:nth-child\(\d\) \{ width: (\d+)%", style)]
    assert sum(shares) <= 60  # room for the claims and the time


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
    seen = "not judged: a quick run, in which the claim holds. The full run gives the verdict"
    assert f"·\xa0{seen}" in found.cells  # a sign of neither success nor failure
    (image,) = found.every("img")
    assert "(f) sigmoid; thin: the bound" in image["alt"]
    assert not re.search(r"[$\\{}]", image["alt"])
    assert "linear: ‖∂h_t/∂h_k‖ = ρ^(t-k)" in found.cells
    assert table_of(real)[0][3].endswith(" s (quick)")
    again = json.loads((real / "vanishing_exploding" / "result.json").read_text())
    assert again["verdict"] == table_of(real)[0][2] == seen


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
