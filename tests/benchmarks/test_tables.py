"""Pages and cards give the scores that `benchmarks/clips.py` wrote; what they claim holds."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = {
    (row["task"], row["clip"], row["model"]): row
    for row in json.loads((ROOT / "benchmarks/results/clips.json").read_text())["rows"]
}
CLIPS = ("city_night", "cup_hand", "dog_phone")
NOISE = ("noisy", "non-local means", "ffdnet_color", "rvrt_denoise_small")
BLUR = ("blurred", "unsharp mask", "rvrt_deblur_small")
README = {
    "x4 enlarging": ("sr", ("input", "bicubic", "rvrt_small", "basicvsr_reds4")),
    "noise, sigma 20": ("denoise20", ("noisy", *NOISE[1:2], *NOISE[:1:-1])),
    "noise, sigma 50": ("denoise50", ("noisy", *NOISE[1:2], *NOISE[:1:-1])),
    "motion blur": ("deblur", BLUR),
}


def cells(page: str, *starts: str) -> list[str]:
    """Returns the cells behind the first ones of the only row of a page that begins with them."""
    start = "".join(rf"\| {re.escape(cell)} " for cell in starts)
    (row,) = re.findall(rf"^ *{start}\|(.*)\|$", (ROOT / page).read_text(), re.MULTILINE)
    return [cell.strip() for cell in row.split("|")]


def psnr(cell: str) -> str:
    """Returns the first number of a cell."""
    return re.match(r"[\d.]+", cell)[0]


@pytest.mark.parametrize("clip", CLIPS)
def test_the_small_networks_are_better_than_what_they_are_compared_with(clip):
    for task, ours, other in (
        ("sr", "rvrt_small", "edvr_tiny"),
        ("denoise20", "rvrt_denoise_small", "ffdnet_color"),
        ("denoise50", "rvrt_denoise_small", "ffdnet_color"),
        ("deblur", "rvrt_deblur_small", "unsharp mask"),
        ("deblur", "rvrt_deblur_small", "blurred"),
    ):
        assert ROWS[task, clip, ours]["PSNR"] > ROWS[task, clip, other]["PSNR"]


@pytest.mark.parametrize("row", README)
def test_the_readme(row):
    task, models = README[row]
    found = [psnr(cell) for cell in cells("README.md", row) if cell]
    assert found == [f"{ROWS[task, 'mean', model]['PSNR']:.2f}" for model in models]


def both(row: dict, other: str = "SSIM") -> str:
    """Returns PSNR and SSIM, or PSNR and LPIPS, as the tables write them."""
    second = f"({row['LPIPS']:.3f})" if other == "LPIPS" else f"/ {row['SSIM']:.4f}"
    return f"{row['PSNR']:.2f} {second}"


def gain(ours: dict, other: dict) -> str:
    """Returns by how much the printed PSNR of `ours` is above that of `other`."""
    return f"{round(ours['PSNR'], 2) - round(other['PSNR'], 2):+.2f} dB"


@pytest.mark.parametrize("clip", CLIPS)
def test_the_page_of_benchmarks(clip):
    page = "docs/benchmarks.md"
    models = ("bicubic", "rvrt_small", "edvr_tiny", "basicvsr_reds4")
    expected = [both(ROWS["sr", clip, model]) for model in models]
    assert cells(page, clip, "PSNR / SSIM") == expected
    for sigma in ("20", "50"):
        rows = [ROWS[f"denoise{sigma}", clip, model] for model in NOISE]
        assert cells(page, clip, sigma) == [both(row, "LPIPS") for row in rows]
    rows = [ROWS["deblur", clip, model] for model in BLUR]
    blurred = " | ".join([clip, *(both(row, "LPIPS") for row in rows)])
    assert f"| {blurred} |" in (ROOT / page).read_text()


@pytest.mark.parametrize("clip", CLIPS)
def test_the_cards(clip):
    card = "rvrt_jax/assets/rvrt_deblur_small.md"
    rows = [ROWS["deblur", clip, model] for model in BLUR]
    assert cells(card, clip) == [*map(both, rows), gain(rows[-1], rows[0])]
    for sigma in ("20", "50"):
        rows = [ROWS[f"denoise{sigma}", clip, model] for model in NOISE]
        expected = [f"{row['PSNR']:.2f}" for row in rows[:2]] + [both(row) for row in rows[2:]]
        found = cells("rvrt_jax/assets/rvrt_denoise_small.md", clip, sigma)
        assert found == [*expected, gain(rows[-1], rows[-2])]
    found = cells("rvrt_jax/assets/rvrt_small.md", clip)
    for cell, model in zip(found, ("bicubic", "rvrt_small"), strict=False):
        assert cell.startswith(both(ROWS["sr", clip, model]))
