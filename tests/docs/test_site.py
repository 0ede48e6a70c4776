"""The site builds without network, and shows what it promises."""

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rvrt_jax

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_public_name_is_on_the_api_page(site):
    page = (site / "api.html").read_text()
    for name in rvrt_jax.__all__:
        home = getattr(rvrt_jax, name).__module__
        assert f'id="{home}.{name}"' in page


def test_every_recipe_is_shown(site):
    page = (site / "research.html").read_text()
    for path in (ROOT / "configs").glob("*.py"):
        assert path.stem == "common" or f'id="configs.{path.stem}"' in page


def test_the_examples_stand_in_the_page(site):
    page = re.sub("<[^>]*>", "", (site / "outside.html").read_text())
    for path in (ROOT / "examples").iterdir():
        assert html.escape(path.read_text().strip().splitlines()[-1], quote=False) in page


def test_pages_load_nothing_from_the_network(site):
    for path in site.rglob("*.html"):
        page = path.read_text()
        for tag in ('src="http', "src='http", '@import url("http', "fonts.googleapis"):
            assert tag not in page, f"{path.name} loads {tag}"
