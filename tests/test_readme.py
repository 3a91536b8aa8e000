"""The README's code runs as printed, in order, in one namespace."""

import pathlib
import re
import subprocess
import sys

README = pathlib.Path(__file__).parent.parent / "README.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.M | re.S)


def test_python_blocks_run():
    """In an interpreter of their own, with JAX as a reader finds it."""
    checks = "assert result.metrics.loss[-1] < 0.1 * result.metrics.loss[0]"
    code = "\n".join([*blocks("python"), checks])
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=README.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "check_gradients: 1 case," in run.stdout


def test_the_first_block_is_two_lines_to_paste():
    install_and_run, install_and_test = blocks("sh")[0].strip().splitlines()
    assert install_and_run.endswith("python -m experiments run digits")
    assert "pytest" in install_and_test
    for line in (install_and_run, install_and_test):
        assert line.startswith("python3 -m venv")


WHERE = README.read_text().split("## Where things are")[1].split("\n## ")[0]
LAYOUT = re.findall(r"\b(?:jaxbptt/[\w./]+|tests/|experiments/)", WHERE)


def test_the_layout_names_what_is_there():
    assert not [name for name in LAYOUT if not (README.parent / name).exists()]


def test_the_layout_names_all_that_is_there():
    rooms = {
        path.name + "/" * path.is_dir() for path in (README.parent / "jaxbptt").iterdir() if path.name[0] not in "_."
    }
    assert {f"jaxbptt/{name}" for name in rooms - {"conftest.py", "py.typed"}} <= set(LAYOUT)
