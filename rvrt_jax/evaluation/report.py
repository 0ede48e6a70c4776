"""What test sets scored: means, the table beside the published numbers, and the files."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rvrt_jax.evaluation import scoring
from rvrt_jax.evaluation.test_sets import MIDDLE, PUBLISHED, TEST_SETS, Job
from rvrt_jax.files import write_text

FILES = ("scores.md", "scores.csv", "scores.json")
Frame = dict[str, float]  # the scores of a frame


def summarise(
    jobs: list[Job], scores: list[list[Frame]], published: str | None
) -> list[dict[str, Any]]:
    """Returns a dictionary for each set and noise level."""
    groups: dict[tuple[str, int | None], list[tuple[str, list[Frame]]]] = {}
    for job, frames in zip(jobs, scores, strict=True):
        groups.setdefault((job.key, job.sigma), []).append((job.clip.name, frames))
    result = []
    for (key, sigma), clips in groups.items():
        test = TEST_SETS[key]
        numbers = PUBLISHED.get(published or "", {}).get(key if sigma is None else (key, sigma))
        by_clip = {name: _mean(frames) for name, frames in clips}
        result.append(
            {
                "set": key,
                "title": test.title,
                "sigma": sigma,
                "frames": sum(len(frames) for _, frames in clips),
                "metrics": test.metrics,
                "published_average": "frames" if test.by_frame else "clips",
                "published": dict(zip(test.metrics, numbers, strict=True)) if numbers else None,
                "mean": _mean(list(by_clip.values())),
                "mean_of_frames": _mean([frame for _, frames in clips for frame in frames]),
                "clips": by_clip,
            }
        )
    return result


def _mean(scores: list[Frame]) -> Frame:
    """Averages each score over those that have it: a first frame has no warping error."""
    names = dict.fromkeys(name for one in scores for name in one)
    return {name: float(np.mean([s[name] for s in scores if name in s])) for name in names}


HEADER = (
    "set", "clips", "frames", "PSNR", "published", "difference", "SSIM", "published", "difference",
    "warping error (true)",
)  # fmt: skip


def rows(sets: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yields the cells of the table, one row a set and, where they differ, average.

    The row whose average is the published one comes first and carries the published numbers. The
    warping error is in thousandths, with that of the true frames in brackets.
    """
    for one in sets:
        psnr, ssim = one["metrics"]
        name = f"{one['title']} {'Y' if psnr == 'psnr_y' else 'RGB'}"
        name += "" if one["sigma"] is None else f" sigma {one['sigma']}"
        averages = {"clips": one["mean"], "frames": one["mean_of_frames"]}
        first = one["published_average"]
        order = [first, *(other for other in averages if other != first)]
        if averages["clips"] == averages["frames"] or first == "clips":
            order = order[:1]
        for average in order:
            mean = averages[average]
            numbers = (one["published"] or {}) if average == first else {}
            cells = [name + (f", mean of {average}" if len(order) > 1 else "")]
            cells += [str(len(one["clips"])), str(one["frames"])]
            for metric, digits in ((psnr, 2), (ssim, 4)):
                reference = numbers.get(metric)
                known = reference is not None
                cells += [
                    f"{mean[metric]:.{digits}f}",
                    f"{reference:.{digits}f}" if known else "",
                    f"{mean[metric] - reference:+.{digits}f}" if known else "",
                ]
            warping = [f"{1000 * mean[k]:.3f}" for k in ("warping", "warping_true") if k in mean]
            yield (*cells, f"{warping[0]} ({warping[1]})" if warping else "")


def table(sets: list[dict[str, Any]]) -> str:
    """Returns the scores as aligned text."""
    lines = [HEADER, *rows(sets)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    )


def markdown(sets: list[dict[str, Any]]) -> str:
    """Returns the scores as a Markdown table."""
    lines = [HEADER, ("---", *["---:"] * (len(HEADER) - 1)), *rows(sets)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write(output: Path, report: dict[str, Any], jobs: list[Job], scores: list[list[Frame]]) -> None:
    fields = ["set", "sigma", "clip", "frame", *scoring.METRICS, "warping", "warping_true"]
    lines = io.StringIO()
    writer = csv.DictWriter(lines, fields, lineterminator="\n")
    writer.writeheader()
    for job, frames in zip(jobs, scores, strict=True):
        place = {"set": job.key, "sigma": job.sigma, "clip": job.clip.name}
        first = MIDDLE if job.clip.listed else 0
        writer.writerows(place | {"frame": first + i} | frame for i, frame in enumerate(frames))
    texts = (markdown(report["sets"]), lines.getvalue(), scoring.to_json(report))
    for name, text in zip(FILES, texts, strict=True):
        write_text(output / name, text)
    print(f"wrote {', '.join(str(output / name) for name in FILES)}")
