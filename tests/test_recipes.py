"""Each recipe runs as printed after the first block, and needs none of the others."""

import pathlib
import re
import subprocess
import sys

RECIPES = pathlib.Path(__file__).parent.parent / "experiments" / "recipes.md"
README = RECIPES.parent.parent / "README.md"
EACH_ALONE = """
import pathlib, re, sys
blocks = re.findall(r"^```python\\n(.*?)^```", pathlib.Path(sys.argv[1]).read_text(), re.M | re.S)
common = {}
exec(blocks[0], common)
for number, block in enumerate(blocks[1:], 1):
    exec(compile(block, f"recipe {number}", "exec"), dict(common))
    print("ran", number)
"""


def test_every_recipe_runs():
    """In an interpreter of their own, with JAX as a reader finds it."""
    command = [sys.executable, "-W", "error", "-c", EACH_ALONE, RECIPES]
    run = subprocess.run(command, cwd=README.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    titles = re.findall("^## ", RECIPES.read_text(), re.M)
    assert run.stdout.count("ran") == len(titles) >= 10


def test_the_readme_links_to_them():
    assert "(experiments/recipes.md)" in README.read_text()
