"""Two models one after the other, from files to files."""

import json

import numpy as np
import pytest
from helpers.toy import PARAMS, Slide, Toy

from rvrt_jax.errors import UserError
from rvrt_jax.evaluation import files as evaluation
from rvrt_jax.evaluation.clips import ReadOptions
from rvrt_jax.media.frames import open_frames, open_writer, to_uint
from rvrt_jax.restoration.clip import OutputOptions
from rvrt_jax.restoration.restore import restore
from rvrt_jax.restoration.settings import RestoreSettings
from rvrt_jax.weights import load as loading

FIRST = Toy(scale=2, blur=True)  # between 8-bit levels, so that quantising shows
SECOND = Slide(scale=1), {"gain": np.float32(1 / 25)}  # a weighted mean over the window


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs evaluation on a made-up clip; returns (clip, output frames, report)."""
    loaded = {"first": loading.Loaded(FIRST, PARAMS), "second": loading.Loaded(*SECOND)}
    monkeypatch.setattr(loading, "load_described", lambda path, *_, **__: loaded[path])
    monkeypatch.setattr(loading, "config", lambda model: {"name": "toy"})
    frames = np.random.default_rng(0).integers(0, 255, (7, 10, 13, 3)).astype(np.uint8)
    with open_writer(tmp_path / "in", fps=25, bits=8, height=10, width=13) as writer:
        for frame in frames:
            writer.write(frame)

    def call(weights="first", **changes):
        options = {"stage2": "second"} | changes
        report = evaluation.run(
            model_name=None,
            fields={},
            weights=weights,
            stage2=options.pop("stage2"),
            sources=[str(tmp_path / "in")],
            output=str(tmp_path / "out"),
            gt=None,
            picture=None,
            scores_file=str(tmp_path / "scores.json"),
            settings=RestoreSettings(**options),
            reading=ReadOptions(),
            options=OutputOptions(),
        )
        return frames, open_frames(tmp_path / "out").read_all(), report

    return call


@pytest.mark.parametrize("quantise", [False, True])
def test_the_second_stage_restores_the_first_ones_result(run, tmp_path, quantise):
    frames, out, _ = run(quantise=quantise, tile=(3, 8, 8), overlap=(1, 2, 2))
    between = restore(FIRST, PARAMS, frames, tile=(3, 8, 8), overlap=(1, 2, 2))
    if quantise:
        between = np.stack([to_uint(frame, 8) for frame in between])
    expected = restore(*SECOND, between)
    np.testing.assert_array_equal(out, [to_uint(frame, 8) for frame in expected])
    report = json.loads((tmp_path / "scores.json").read_text())
    assert report["stage2"] == "second" and report["clips"][0]["frames"] == 7


def test_a_windowed_model_tells_of_itself_and_is_ensembled(run, capsys):
    frames, out, report = run("second", stage2=None, ensemble=4, border="circle")
    expected = restore(*SECOND, frames, ensemble=4, border="circle")
    np.testing.assert_array_equal(out, [to_uint(frame, 8) for frame in expected])
    assert report["clips"][0]["told"]["size"] > 0
    assert "size" in capsys.readouterr().err


def test_an_option_goes_to_the_stage_that_has_a_use_for_it(run):
    frames, out, _ = run(border="circle")
    expected = restore(*SECOND, restore(FIRST, PARAMS, frames), border="circle")
    np.testing.assert_array_equal(out, [to_uint(frame, 8) for frame in expected])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "second", "stage2": "first"}, "--stage2 first .* enlarges 2 times"),
        ({"stage2": None, "quantise": True}, "--quantise rounds between two stages"),
        ({"stage2": None, "border": "circle"}, "takes whole clips, not windows"),
        ({"ensemble": 3}, "ensemble is 3"),
    ],
)
def test_mistakes_are_named(run, changes, message):
    with pytest.raises(UserError, match=message):
        run(**changes)
