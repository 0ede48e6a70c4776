"""What clips and test sets scored: means, tables and files."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rvrt_jax.evaluation.metrics import METRICS, mean
from rvrt_jax.evaluation.test_sets import MIDDLE, PUBLISHED, PUBLISHED_LPIPS, TEST_SETS, Job
from rvrt_jax.files import write_text

FILES = ("scores.md", "scores.csv", "scores.json")
Frame = dict[str, float]  # the scores of a frame
MORE_METRICS = {"lpips": "LPIPS", "warping": "warping error", "warping_true": "of the truth"}
TITLES = METRICS | MORE_METRICS


def summarise_sets(
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
        by_clip = {name: mean(frames) for name, frames in clips}
        result.append(
            {
                "set": key,
                "title": test.title,
                "sigma": sigma,
                "frames": sum(len(frames) for _, frames in clips),
                "metrics": test.metrics,
                "published_average": "frames" if test.by_frame else "clips",
                "published": dict(zip(test.metrics, numbers, strict=True)) if numbers else None,
                "published_lpips": PUBLISHED_LPIPS.get(published or "", {}).get(key),
                "mean": mean(list(by_clip.values())),
                "mean_of_frames": mean([frame for _, frames in clips for frame in frames]),
                "clips": by_clip,
            }
        )
    return result


_HEADER = ("set", "clips", "frames")
_COMPARED = ("published", "difference")
_WARPING = "warping error (true)"


def _header(sets: list[dict[str, Any]]) -> tuple[str, ...]:
    """Returns the titles of the columns. LPIPS has one where it was measured."""
    titles = ("PSNR", "SSIM", *(["LPIPS"] if _any_lpips(sets) else []))
    return (*_HEADER, *(cell for title in titles for cell in (title, *_COMPARED)), _WARPING)


def _any_lpips(sets: list[dict[str, Any]]) -> bool:
    return any("lpips" in one["mean"] for one in sets)


def rows(sets: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yields the cells of the table, one row a set and, where they differ, average.

    The row whose average is the published one comes first and carries the published numbers. The
    warping error is in thousandths, with that of the true frames in brackets.
    """
    perceptual = (("lpips", 4),) if _any_lpips(sets) else ()
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
            numbers = (one["published"] or {}) | {"lpips": one["published_lpips"]}
            numbers = numbers if average == first else {}
            cells = [name + (f", mean of {average}" if len(order) > 1 else "")]
            cells += [str(len(one["clips"])), str(one["frames"])]
            for metric, digits in ((psnr, 2), (ssim, 4), *perceptual):
                reference = numbers.get(metric)
                known = reference is not None and metric in mean
                cells += [
                    f"{mean[metric]:.{digits}f}" if metric in mean else "",
                    f"{reference:.{digits}f}" if known else "",
                    f"{mean[metric] - reference:+.{digits}f}" if known else "",
                ]
            warping = [f"{1000 * mean[k]:.3f}" for k in ("warping", "warping_true") if k in mean]
            yield (*cells, f"{warping[0]} ({warping[1]})" if warping else "")


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Returns a table as text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    )


def table(sets: list[dict[str, Any]]) -> str:
    """Returns the scores of test sets as aligned text."""
    return aligned([_header(sets), *rows(sets)])


def markdown(sets: list[dict[str, Any]]) -> str:
    """Returns the scores of test sets as a Markdown table."""
    header = _header(sets)
    lines = [header, ("---", *["---:"] * (len(header) - 1)), *rows(sets)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write(output: Path, report: dict[str, Any], jobs: list[Job], scores: list[list[Frame]]) -> None:
    """Writes the scores of test sets to a folder: as a table, of every frame, and as JSON."""
    fields = ["set", "sigma", "clip", "frame", *METRICS, *MORE_METRICS]
    lines = io.StringIO()
    writer = csv.DictWriter(lines, fields, lineterminator="\n")
    writer.writeheader()
    for job, frames in zip(jobs, scores, strict=True):
        place = {"set": job.key, "sigma": job.sigma, "clip": job.clip.name}
        first = MIDDLE if job.clip.listed else 0
        writer.writerows(place | {"frame": first + i} | frame for i, frame in enumerate(frames))
    texts = (markdown(report["sets"]), lines.getvalue(), to_json(report))
    for name, text in zip(FILES, texts, strict=True):
        write_text(output / name, text)
    print(f"wrote {', '.join(str(output / name) for name in FILES)}")


def summarise_clips(clips: list[dict]) -> dict:
    """Returns {} or {"mean": ...} over clips and {"mean_of_frames": ...} over all frames.

    The two differ where clips differ in length; papers report one or the other.
    """
    scored = [clip for clip in clips if "scores" in clip]
    if not scored:
        return {}
    frames = sum(clip["frames"] for clip in scored)
    by_clip, by_frame = {}, {}
    for version in scored[0]["scores"]:
        by_clip[version] = mean([clip["scores"][version] for clip in scored])
        by_frame[version] = {
            metric: sum(clip["scores"][version][metric] * clip["frames"] for clip in scored)
            / frames
            for metric in scored[0]["scores"][version]
        }
    return {"mean": by_clip, "mean_of_frames": by_frame}


def clip_table(clips: list[dict], summary: dict) -> str:
    """Returns the scores as text: a line per clip and version, then their means if they differ."""
    found = [(clip["name"], clip["scores"]) for clip in clips if "scores" in clip]
    if len(found) > 1:
        found.append(("mean", summary["mean"]))
    if len({clip["frames"] for clip in clips if "scores" in clip}) > 1:
        found.append(("mean of all frames", summary["mean_of_frames"]))
    names = [name for name in TITLES if any(name in s for _, v in found for s in v.values())]
    lines = [("clip", "", *(TITLES[name] for name in names))]
    for name, versions in found:
        lines += [
            (name, version, *score_cells(scores, names)) for version, scores in versions.items()
        ]
    return aligned(lines)


def score_cells(scores: Frame, names: Iterable[str] = tuple(METRICS)) -> list[str]:
    """Returns scores as a table shows them; what was not measured is left blank."""
    digits = {"psnr_rgb": 2, "psnr_y": 2, "warping": 6, "warping_true": 6}
    return [f"{scores[k]:.{digits.get(k, 4)}f}" if k in scores else "" for k in names]


def to_json(report: dict) -> str:
    """Returns a report as JSON text; infinite numbers (the PSNR of equal frames) become null."""
    return json.dumps(_finite(report), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
