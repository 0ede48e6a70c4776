"""Every command of the pages is run by a test, or says why not.

Above each shell block of README.md and docs/*.md stands one of

    <!-- tested: FILE or FILE::TEST -->  another test runs it; it must exist
    <!-- run: slow -->                   the test below runs it
    <!-- not run: WHY -->
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from rvrt_jax.data.clips import BUNDLED
from rvrt_jax.weights import catalogue

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- ([^>]*?) -->\n)?```(?:sh|bash|shell|console)\n(.*?)```", re.DOTALL)


def blocks() -> list[tuple[str, str, str]]:
    """Returns the page, the mark ("" without) and the commands of every shell block."""
    return [
        (page.name, mark, commands)
        for page in PAGES
        for mark, commands in BLOCK.findall(page.read_text())
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_run_or_says_why_not(page):
    for name, mark, commands in blocks():
        if name != page.name:
            continue
        kind, _, rest = mark.partition(": ")
        assert kind in ("tested", "run", "not run"), f"no mark above: {commands}"
        if kind == "not run":
            assert len(rest.split()) > 2, f"say why this is not run: {commands}"
        if kind == "tested":
            file, _, test = rest.partition("::")
            assert f"def {test or 'test_'}" in (ROOT / file).read_text(), f"{rest} does not exist"


def test_the_weights_in_the_table_are_known():
    table = re.findall(r"^\|.*\|$", (ROOT / "docs/choosing.md").read_text(), re.MULTILINE)
    names = set(re.findall(r"`((?:rvrt|edvr|basicvsr)_\w+)`", "\n".join(table)))
    done = subprocess.run(
        [sys.executable, "-m", "rvrt_jax.weights", "list"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert len(names) > 8 and names <= rows.keys()
    for name in names & catalogue.WEIGHTS.keys():
        assert catalogue.WEIGHTS[name].license in rows[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    "commands", [commands for _, mark, commands in blocks() if mark.startswith("run")]
)
def test_commands_run_as_they_stand(commands, tmp_path):
    for name in ("configs", "examples", "eval.py", "train.py", "rvrt_jax"):
        (tmp_path / name).symlink_to(ROOT / name)
    film = cv2.VideoWriter(
        str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (80, 48)
    )
    for path in sorted((BUNDLED / "cup_hand").glob("*.png"))[:3]:
        film.write(cv2.resize(cv2.imread(str(path)), (80, 48), interpolation=cv2.INTER_AREA))
    film.release()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    before = set(tmp_path.iterdir())
    done = subprocess.run(
        ["bash", "-euc", commands], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert set(tmp_path.iterdir()) > before
