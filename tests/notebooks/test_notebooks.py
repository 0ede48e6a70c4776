"""The notebooks run from top to bottom, small; in git they have no outputs."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_SECONDS = 2 * 180  # of processors: three minutes on two cores, however busy the machine is


def tagged(notebook, tag: str):
    (cell,) = (cell for cell in notebook.cells if tag in cell.metadata.get("tags", []))
    return cell


def parameters(**changed) -> dict[str, str]:
    return {key: repr(value) for key, value in changed.items()}


def execute(name: str, folder: Path, **changed) -> nbformat.NotebookNode:
    """Runs a notebook in a copy of what of the checkout it needs, with other parameters."""
    work = folder / "notebooks"
    work.mkdir()
    for part in ("train.py", "configs", "rvrt_jax"):
        (folder / part).symlink_to(ROOT / part)
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    tagged(notebook, "install").source = ""
    settings = tagged(notebook, "parameters")
    for key, value in parameters(**changed).items():
        settings.source, count = re.subn(
            rf"^{key} = .*$", lambda _, k=key, v=value: f"{k} = {v}", settings.source, flags=re.M
        )
        assert count == 1, f"{name} has no parameter {key}"
    environment = {
        "PYTHONPATH": str(ROOT),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    old = {key: os.environ.get(key) for key in environment}
    os.environ.update(environment)
    try:
        client = nbclient.NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            resources={"metadata": {"path": work}},
        )
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        client.execute()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert 1 < used < MOST_SECONDS  # the kernel has ended, so that it counts
    finally:
        for key, value in old.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
    return notebook


def printed(notebook) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def pictures(notebook) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_restore_shows_and_writes_the_film(tmp_path):
    done = execute("restore.ipynb", tmp_path, FRAMES=3)
    scores = re.findall(r"^(bicubic|restored) .*'psnr_rgb': ([0-9.]+)", printed(done), re.M)
    assert float(dict(scores)["restored"]) > float(dict(scores)["bicubic"]) + 3
    assert pictures(done) == 1
    html = json.dumps([cell.get("outputs") for cell in done.cells])
    assert "<video" in html and "restored.mp4" in html
    assert (tmp_path / "notebooks/restored.mp4").stat().st_size > 1000


@pytest.mark.parametrize(
    "name, clip, message",
    [
        ("restore.ipynb", "holiday.mp4", "holiday.mp4 does not exist. Give a folder of images"),
        ("explore.ipynb", ".", "holds no image"),
    ],
)
def test_without_data_a_notebook_says_what_it_takes(tmp_path, name, clip, message):
    with pytest.raises(nbclient.exceptions.CellExecutionError, match=message):
        execute(name, tmp_path, CLIP=clip)


@pytest.mark.slow
def test_fine_tune_trains_goes_on_and_restores(tmp_path):
    small = {"STEPS": 4, "BATCH": 1, "CROP": 64, "EVERY": 4}
    done = execute("fine_tune.ipynb", tmp_path, **small)
    lines = (tmp_path / "notebooks/runs/fine_tune/log.jsonl").read_text().splitlines()
    validated = [entry["step"] for entry in map(json.loads, lines) if "validation" in entry]
    assert validated[-2:] == [4, 8]
    assert pictures(done) == 4
    assert (tmp_path / "notebooks/fine_tuned.safetensors").stat().st_size > 1_000_000


@pytest.mark.slow
def test_fine_tune_without_clips_says_where_to_put_them(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="has no clips. Put films"):
        execute("fine_tune.ipynb", tmp_path, CLIPS=str(tmp_path / "empty"))


@pytest.mark.slow
def test_explore_draws_what_the_alignment_sees(tmp_path):
    done = execute("explore.ipynb", tmp_path)
    assert pictures(done) == 5
    assert "the first has none before it" in printed(done)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_outputs_are_not_kept_in_git(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs") and not cell.get("execution_count"), path.name


def test_all_begin_with_the_same_install_line():
    lines = {tagged(nbformat.read(path, as_version=4), "install").source for path in NOTEBOOKS}
    assert len(NOTEBOOKS) == 3 and len(lines) == 1
    for path in NOTEBOOKS:
        first = next(c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
        assert first.source in lines


@pytest.mark.slow
def test_the_install_line_leaves_an_installed_jax_alone(tmp_path):
    """Asks pip what it would do, in a copy of the checkout."""
    line = tagged(nbformat.read(NOTEBOOKS[0], as_version=4), "install").source
    target = re.fullmatch(r'%pip install -q "([^"]+)".*', line).group(1)
    (tmp_path / "notebooks").mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "rvrt_jax", tmp_path / "rvrt_jax")
    command = [sys.executable, "-m", "pip", "install", "-q", target, "--dry-run", "--report", "-"]
    done = subprocess.run(
        command, cwd=tmp_path / "notebooks", capture_output=True, text=True, check=True
    )
    names = {entry["metadata"]["name"] for entry in json.loads(done.stdout)["install"]}
    assert "rvrt_jax" in names and not names & {"jax", "jaxlib", "numpy", "flax"}
