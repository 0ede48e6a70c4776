import json
import math
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

import rvrt_jax.convert as convert
from rvrt_jax import models
from rvrt_jax.errors import UserError
from rvrt_jax.weights import catalogue, families, mapping, pth
from rvrt_jax.weights import load as loading
from rvrt_jax.weights import state_dict as files

# A small network.
TINY = {
    "window_size": [2, 4, 4],
    "num_blocks": [1, 1, 1],
    "depths": [1, 2, 1],
    "embed_dims": [12, 12, 12],
    "num_heads": [2, 3, 4],
    "deformable_groups": 6,
    "attention_heads": 4,
    "num_feat": 20,
}
DENOISE = {**TINY, "upscale": 1, "nonblind_denoising": True}


@pytest.fixture(scope="module")
def model():
    return models.build("rvrt", **TINY)


@pytest.fixture(scope="module")
def params(model):
    rng = np.random.default_rng(0)
    shapes = loading._shapes(model)
    return mapping.nest({path: rng.random(shape, np.float32) for path, shape in shapes.items()})


@pytest.fixture(scope="module")
def state_dict(model, params):
    return loading.to_state_dict(model, params)


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_packaged_spynet_is_complete_and_trained():
    params = loading.spynet_params()
    assert sorted(params) == [f"level_{i}" for i in range(6)]
    assert params["level_0"]["conv_0"]["kernel"].shape == (7, 7, 8, 32)
    leaves = jax.tree.leaves(params)
    assert sum(leaf.size for leaf in leaves) == 1_440_300
    assert all(leaf.dtype == np.float32 and np.isfinite(leaf).all() for leaf in leaves)


def test_state_dict_round_trip(model, params, state_dict):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again, back = loading.from_state_dict("rvrt", state_dict, **TINY)
    assert again == model
    assert_same(back, params)
    assert state_dict["feat_extract.main.1.weight"].shape == (12, 3, 1, 3, 3)
    index = "backbone.forward_1.main.5.0.residual_group.blocks.1.attn.relative_position_index"
    assert state_dict[index].shape == (32, 32)


def test_state_dict_round_trip_of_the_tree_that_several_clips_make():
    model = models.build("rvrt", **DENOISE)
    video = jnp.zeros((1, 6, 12, 20, 4))
    shapes = jax.eval_shape(model.init, jax.random.key(0), video)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), shapes)
    state_dict = loading.to_state_dict(model, params)
    _, back = loading.from_state_dict("rvrt", state_dict, **DENOISE)
    assert_same(back, params)
    assert state_dict["feat_extract.1.weight"].shape == (12, 4, 1, 3, 3)


@pytest.mark.parametrize("name", ["rvrt_small", "rvrt_denoise_small", "rvrt_deblur_small"])
def test_our_networks_come_back_and_their_shapes_are_known(name):
    model, params = loading.load(name)
    state = loading.to_state_dict(model, params)
    _, back = loading.from_state_dict("rvrt", state, **models.fields(model))
    assert_same(back, params)
    seen = families.detect(state)
    own = models.fields(model)
    if own["along_motion"]:  # which has the shapes of the other
        own |= {"warped_neighbours": True}
    assert {key: own[key] for key in seen if key != "name"} == {
        key: value for key, value in seen.items() if key != "name"
    }
    for key in ("feature_stride", "denoise_first", "warped_neighbours"):
        assert key in seen or own[key] in (4, False)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_of_any_precision_load_as_float32(dtype, suffix, tmp_path, state_dict, params):
    path = tmp_path / f"x{suffix}"
    stored = {k: v.astype(dtype) for k, v in state_dict.items() if v.dtype == np.float32}
    files.write(path, files.Checkpoint(stored, {"name": "rvrt", **TINY}, "MIT", "made up"))
    _, back = loading.load(path, "rvrt", **TINY)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(back))
    assert_same(back, jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), params))


def test_safetensors_say_their_model_and_terms(tmp_path, model, state_dict, params):
    path = tmp_path / "x.safetensors"
    config = loading.config(model)
    assert json.loads(json.dumps(config)) == config | {
        k: list(v) for k, v in config.items() if isinstance(v, tuple)
    }
    assert not {"dtype", "remat", "attention"} & config.keys()
    files.write(path, files.Checkpoint(state_dict, config, "CC-BY-NC-4.0", "somewhere"))
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode  # as readable as any new file
    loaded = loading.load_described(path)
    assert loaded.model == model
    assert (loaded.license, loaded.source) == ("CC-BY-NC-4.0", "somewhere")
    assert_same(loaded.params, params)


def test_pth_without_a_name_is_told_by_its_shapes(tmp_path, monkeypatch, model, state_dict, params):
    path = tmp_path / "x.pth"
    pth.write(path, state_dict)
    with pytest.raises(UserError, match=r"no published variant; it looks like 'rvrt' \(upscale=4"):
        loading.load(path)
    preset = {k: tuple(v) if isinstance(v, list) else v for k, v in TINY.items()}
    monkeypatch.setitem(models.VARIANTS, "rvrt_mine", ("rvrt", preset))
    again, back = loading.load(path)
    assert again == model
    assert_same(back, params)


def test_checkpoint_of_another_model_is_named(tmp_path, state_dict):
    path = tmp_path / "x.pth"
    pth.write(path, state_dict)
    with pytest.raises(UserError) as caught:
        loading.load_pth(path, "rvrt", **DENOISE)
    message = str(caught.value)
    assert message.startswith(f"{path}: cannot fill 'rvrt': the keys do not fit the model")
    assert "look like 'rvrt' (upscale=4, clip_size=2, window_size=(2, 4, 4)" in message
    pth.write(path, {"conv1.weight": np.zeros((2, 3), np.float32)})
    with pytest.raises(UserError, match="of no model known here"):
        loading.load_pth(path, "rvrt", **TINY)
    with pytest.raises(UserError, match="of no model known here: 1 keys"):
        loading.load(path)
    with pytest.raises(UserError, match="SpyNet alone"):
        loading.load(catalogue.ASSETS / "spynet.safetensors")


def test_parameters_of_another_model_are_refused(model, params):
    smaller = {k: v for k, v in params.items() if k != "upsampler"}
    with pytest.raises(UserError, match="10 missing, 0 unexpected"):
        loading.to_state_dict(model, smaller)


def test_names_of_weights(tmp_path, monkeypatch, state_dict, params):
    monkeypatch.setenv("RVRT_JAX_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no file nowhere.pth, nor are weights known"):
        loading.load("nowhere.pth")
    with pytest.raises(UserError, match="python -m rvrt_jax.weights get rvrt_deblur_dvd"):
        loading.load("rvrt_deblur_dvd")
    pth.write(tmp_path / catalogue.WEIGHTS["rvrt_sr_reds"].file, state_dict)
    loaded = loading.load_described("rvrt_sr_reds", "rvrt", **TINY)
    assert loaded.license == "CC-BY-NC-4.0"
    assert_same(loaded.params, params)


def save_run(workdir, trees, scores, *, config=None):
    """Saves checkpoints as the trainer does: step i of `trees` with scores[i] or none."""
    options = ocp.CheckpointManagerOptions(best_fn=lambda s: s.get("psnr_rgb", -math.inf))
    with ocp.CheckpointManager(workdir / "checkpoints", options=options) as manager:
        for step, tree in enumerate(trees):
            items = ocp.args.Composite(
                params=ocp.args.StandardSave(jax.tree.map(jnp.asarray, tree)),
                rest=ocp.args.StandardSave({"step": jnp.array(step)}),
            )
            score = scores[step]
            manager.save(step, args=items, metrics={} if score is None else {"psnr_rgb": score})
    if config:
        (workdir / "config.json").write_text(json.dumps({"model": config, "seed": 1}))


def test_training_runs(tmp_path, model, params):
    config = {"name": "rvrt", **TINY}
    trees = [jax.tree.map(lambda x, i=i: x + i, params) for i in range(3)]
    save_run(tmp_path, trees, [30.0, 31.5, 29.0], config=config)
    for path, step, expected in [
        (tmp_path, None, 2),
        (tmp_path / "checkpoints", "last", 2),
        (tmp_path / "checkpoints", "best", 1),
        (tmp_path, 1, 1),
        (tmp_path / "checkpoints" / "0", None, 0),
    ]:
        again, back = loading.load(path, step=step)
        assert again == model
        assert_same(back, trees[expected])
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(back))
    with pytest.raises(UserError, match=r"has no step 7; it has \[0, 1, 2\], and best"):
        loading.load(tmp_path, step=7)
    with pytest.raises(UserError, match="step=2 does not go with it"):
        loading.load(tmp_path / "checkpoints" / "0", step=2)
    with pytest.raises(UserError, match="cannot fill 'rvrt'.* 4 missing"):
        loading.load(tmp_path, upscale=1, nonblind_denoising=True)
    with pytest.raises(UserError, match="step=1 chooses a checkpoint of a run"):
        loading.load(catalogue.ASSETS / "spynet.safetensors", step=1)
    for file in (tmp_path / "checkpoints" / "1" / "params").rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.unlink()
    with pytest.raises(UserError, match="damaged or incomplete"):
        loading.load(tmp_path, step="best")


def test_unscored_run_without_config(tmp_path, params):
    with pytest.raises(UserError, match="is not a training run: it has no folder checkpoints"):
        loading.load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="no finished checkpoint yet"):
        loading.load(tmp_path)
    save_run(tmp_path, [params, jax.tree.map(lambda x: -x, params)], [None, None])
    with pytest.raises(UserError, match=r"config\.json is missing"):
        loading.load(tmp_path)
    with pytest.raises(UserError, match=r"no validated checkpoint; take the last, or .*\[0, 1\]"):
        loading.load(tmp_path, "rvrt", step="best", **TINY)
    _, back = loading.load(tmp_path, "rvrt", **TINY)
    assert_same(back, jax.tree.map(lambda x: -x, params))
    for text in ("{}", '{"model": '):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=r"config\.json does not say the model"):
            loading.load(tmp_path)


def test_convert_there_and_back(tmp_path, capsys, state_dict, model):
    names = [
        str(tmp_path / name) for name in ("in.pth", "half.safetensors", "out.pth", "x.safetensors")
    ]
    pth.write(names[0], state_dict)
    fields = ["--name", "rvrt", "--fields", json.dumps(TINY)]
    assert convert.main([names[0], names[3], *fields]) == 0
    assert "licence of these weights is not known" in capsys.readouterr().err
    checkpoint = files.read(names[3])
    assert checkpoint.license == "unknown"
    assert not [key for key in checkpoint.state if key.endswith(("index", "mean", "std"))]
    assert convert.main([names[3], names[2]]) == 0
    back = pth.read(names[2])
    assert back.keys() == state_dict.keys()
    assert_same(back, dict(state_dict))
    assert {k: v.dtype for k, v in back.items()} == {k: v.dtype for k, v in state_dict.items()}

    assert (
        convert.main([names[2], names[1], *fields, "--license", "MIT", "--dtype", "float16"]) == 0
    )
    assert capsys.readouterr().err == ""
    half = loading.load_described(names[1])
    assert half.license == "MIT" and half.model == model
    assert convert.main([names[1], names[3]]) == 0
    assert files.read(names[3]).license == "MIT"  # kept from file to file


def test_convert_of_a_run(tmp_path, model, params, state_dict):
    save_run(tmp_path, [params], [30.0], config={"name": "rvrt", **TINY})
    assert convert.main([str(tmp_path), str(tmp_path / "x.pth")]) == 0
    assert_same(pth.read(tmp_path / "x.pth"), dict(state_dict))


def test_convert_says_what_is_wrong_without_a_traceback(tmp_path):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((catalogue.ASSETS / "spynet.safetensors").read_bytes()[:10_000])
    for arguments, message in [
        (["nowhere.pth", "x.safetensors"], "no file nowhere.pth"),
        ([str(cut), "x.pth"], "cut.safetensors: no safetensors file, or cut short"),
    ]:
        command = [sys.executable, "-m", "rvrt_jax.convert", *arguments]
        run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
        assert run.returncode == 1
        assert message in run.stderr and "Traceback" not in run.stderr


def test_unknown_suffix(tmp_path):
    with pytest.raises(UserError, match=r"x\.ckpt: the name ends in none of \.pth"):
        files.write(tmp_path / "x.ckpt", files.Checkpoint({}))
    with pytest.raises(UserError, match="says its model"):
        files.write(tmp_path / "x.safetensors", files.Checkpoint({}))
