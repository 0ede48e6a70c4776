"""What runs on the device gives the same bits as NumPy on the host."""

import numpy as np
import pytest

from rvrt_jax.media.frames import to_float, to_uint
from rvrt_jax.restoration import programs, tiling


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_become_floats_and_come_back(dtype):
    largest = np.iinfo(dtype).max
    numbers = np.arange(largest + 1, dtype=dtype).reshape(1, 16, -1, 1)
    video = np.repeat(numbers, 3, axis=-1)
    floats = programs.to_float(video, np.float32(largest))
    np.testing.assert_array_equal(floats, to_float(video))
    back = programs.to_integers(floats, np.float32(largest), dtype)
    np.testing.assert_array_equal(back, video)


@pytest.mark.parametrize("bits", [8, 16])
def test_rounding_is_that_of_the_writer(bits):
    rng = np.random.default_rng(0)
    largest = 2**bits - 1
    frames = rng.normal(0.5, 0.6, (3, 17, 19, 3)).astype(np.float32)
    halves = (np.arange(10 * 3, dtype=np.float32).reshape(10, 3) + 0.5) / largest
    frames[0, 0, :10] = halves
    dtype = np.dtype(f"u{bits // 8}")
    found = programs.to_integers(frames, np.float32(largest), dtype)
    np.testing.assert_array_equal(found, to_uint(frames, bits))
    assert list(programs.all_finite(frames)) == [True, True, True]
    for wrong in (np.nan, np.inf, -np.inf):
        frames[1, 2, 3, 0] = wrong
        assert list(programs.all_finite(frames)) == [True, False, True]


def test_three_tiles_in_time_are_averaged():
    """Divided by 3, which a product with 1 / 3 would round differently."""
    rng = np.random.default_rng(0)
    blocks = rng.random((5, 3, 8, 9, 3), np.float32)
    starts = list(range(5))
    joined = tiling.join_time(
        (start, start + 1 if start < 4 else 7, programs.to_float(block, np.float32(1)))
        for start, block in zip(starts, blocks, strict=True)
    )
    held, expected = np.zeros((0, 8, 9, 3), np.float32), []
    count = np.zeros(0, np.float32)
    for start, block in zip(starts, blocks, strict=True):
        block, before = block.copy(), held[1:]
        block[: len(before)] += before
        count = np.ones(3, np.float32) + np.pad(count[1:], (0, 3 - len(count[1:])))
        held = block
        done = held[:1] if start < 4 else held
        expected.append(done / count[: len(done), None, None, None])
    np.testing.assert_array_equal(np.concatenate(list(joined)), np.concatenate(expected))


def test_three_tiles_over_a_pixel_are_averaged():
    rng = np.random.default_rng(0)
    rows, columns = tiling.spans(7, 5, 4, 2), tiling.spans(6, 4, 3, 2)
    assert tiling.cover(rows).max() == 3
    pieces = rng.random((len(rows) * len(columns), 2, 10, 8, 3), np.float32)
    joined = tiling.join_space(rows, columns, map(programs.to_float, pieces, [np.float32(1)] * 99))
    expected = np.zeros((2, 14, 12, 3), np.float32)
    count = tiling.cover(rows)[:, None] * tiling.cover(columns)[None]
    for (row, column), piece in zip(tiling.places(rows, columns), pieces, strict=True):
        part = piece[:, row.piece, column.piece]
        expected[:, row.kept, column.kept] += part / count[row.kept, column.kept, None]
    np.testing.assert_array_equal(joined, expected)
