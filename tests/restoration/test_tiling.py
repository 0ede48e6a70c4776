"""Tiles against a brute-force loop over the published rule, with full-size masks."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toy import Toy

from rvrt_jax.errors import UserError
from rvrt_jax.restoration import segments, tiling
from rvrt_jax.restoration.settings import RestoreSettings


def test_starts_of_the_published_reds_command():
    # The published REDS4 command cuts 180x320 frames into tiles of 128, overlapping by 20.
    assert tiling.starts(180, 128, 20) == [0, 52]
    assert tiling.starts(320, 128, 20) == [0, 108, 192]
    assert tiling.starts(100, 100, 2) == [0]
    assert tiling.starts(7, 100, 2) == [0]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 13, 29])
@pytest.mark.parametrize(("tile", "overlap"), [(2, 1), (3, 0), (5, 4), (7, 3), (8, 2)])
def test_starts_cover_every_element(size, tile, overlap):
    first = tiling.starts(size, tile, overlap)
    assert set().union(*(range(s, s + min(tile, size)) for s in first)) == set(range(size))
    assert first == sorted(set(first))


def brute_force(video, tile, overlap, scale, run):
    """The published rule: tiles added into full-size sums and counts, in space, then in time."""
    t, h, w, c = video.shape
    extent = [n or size for n, size in zip(tile, video.shape, strict=False)]
    starts = [
        list(range(0, size - n, n - o)) + [max(0, size - n)]
        for size, n, o in zip(video.shape, extent, overlap, strict=False)
    ]
    total, times = np.zeros((t, h * scale, w * scale, c)), np.zeros((t, 1, 1, 1))
    for a in starts[0]:
        clip = video[a : a + extent[0]]
        plane, count = np.zeros((len(clip), *total.shape[1:])), np.zeros((*total.shape[1:3], 1))
        for y in starts[1]:
            for x in starts[2]:
                piece = run(clip[:, y : y + extent[1], x : x + extent[2]]).astype(np.float64)
                keep = np.ones((*piece.shape[1:3], 1))
                if y != starts[1][0]:
                    keep[: overlap[1] // 2] = 0
                if y != starts[1][-1]:
                    keep[len(keep) - overlap[1] // 2 :] = 0
                if x != starts[2][0]:
                    keep[:, : overlap[2] // 2] = 0
                if x != starts[2][-1]:
                    keep[:, keep.shape[1] - overlap[2] // 2 :] = 0
                region = (
                    np.s_[y * scale : y * scale + len(keep)],
                    np.s_[x * scale : x * scale + keep.shape[1]],
                )
                plane[:, *region] += piece * keep
                count[region] += keep
        total[a : a + len(clip)] += plane / count
        times[a : a + len(clip)] += 1
    return total / times


def stamp(scale):
    """A "network" whose output depends on the place in the tile, so that every seam shows."""

    def run(video):
        out = video.repeat(scale, axis=1).repeat(scale, axis=2)
        t, y, x = np.indices(out.shape[:3])
        return (out + 0.1 * t[..., None] ** 2 + 0.01 * y[..., None] - 0.02 * x[..., None]).astype(
            "f4"
        )

    return run


CASES = [
    # (frames, height, width), tile, overlap, scale
    ((9, 23, 31), (4, 10, 13), (2, 3, 5), 4),
    ((11, 13, 17), (5, 0, 8), (4, 0, 7), 1),  # five tiles over one frame, an odd overlap
    ((7, 19, 11), (0, 6, 0), (2, 5, 2), 2),
    ((3, 5, 7), (8, 9, 16), (2, 2, 2), 4),  # everything smaller than the tile
    ((1, 1, 1), (2, 4, 4), (1, 2, 2), 1),
    ((6, 8, 8), (3, 4, 4), (0, 0, 0), 2),  # tiles that meet without overlap
]


@pytest.mark.parametrize(("shape", "tile", "overlap", "scale"), CASES)
def test_blending_equals_brute_force(shape, tile, overlap, scale):
    video = np.random.default_rng(0).random((*shape, 3), np.float32)
    run = stamp(scale)

    def plane(frames):
        clip = np.stack(frames)
        rows, columns = (
            tiling.spans(clip.shape[axis], tile[axis], overlap[axis], scale) for axis in (1, 2)
        )
        pieces = (
            jnp.asarray(run(clip[:, row.read, column.read]))
            for row, column in tiling.places(rows, columns)
        )
        return tiling.join_space(rows, columns, pieces)

    found = list(tiling.time_tiles(video, tile[0], overlap[0]))
    stops = [*(start for start, _ in found[1:]), len(video)]
    restored = (
        (start, stop, plane(clip)) for (start, clip), stop in zip(found, stops, strict=True)
    )
    blocks = list(tiling.join_time(restored))
    expected = brute_force(video, tile, overlap, scale, run)
    # float32 sums of at most a dozen numbers of size 10
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 9, 10, 23])
@pytest.mark.parametrize(("tile", "overlap"), [(1, 0), (3, 2), (4, 1), (5, 0), (9, 8)])
def test_windows_follow_the_plan_without_knowing_the_length(size, tile, overlap):
    got = list(tiling.time_tiles(iter(range(size)), tile, overlap))
    expected = [
        (s, list(range(s, min(s + tile, size)))) for s in tiling.starts(size, tile, overlap)
    ]
    assert got == expected


def test_frames_come_out_as_soon_as_no_later_tile_shares_them_and_few_are_held():
    """A tile more is read than is computed, which says where the next one begins."""
    read, computed, written = 0, 0, 0

    def frames():
        nonlocal read
        for _ in range(50):
            read += 1
            yield np.zeros((1, 1, 3), np.float32)

    def restored():
        nonlocal computed
        settings = RestoreSettings((6, 0, 0), (2, 0, 0))
        for segment in segments.segments([frames()], Toy(), settings):
            assert written == segment.start
            computed = segment.end
            clip = np.stack(list(segment.frames.values()))
            yield segment.start, segment.stop, jnp.asarray(clip)

    for block in tiling.join_time(restored()):
        written += len(block)
        assert read <= computed + 2 * (6 - 2) + 1 and (written >= computed - 2 or written == 50)
    assert written == 50


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        ((4, 16, 64), (2, 20, 20), "tile of 16 does not exceed its overlap of 20 .height."),
        ((2, 64, 64), (2, 20, 20), "tile of 2 does not exceed its overlap of 2 .frames."),
        ((4, 64), (2, 20, 20), "three whole numbers"),
        ((4, 64, -1), (2, 20, 20), "three whole numbers"),
        ((4, 64.5, 64), (2, 20, 20), "three whole numbers"),
        (4, (2, 20, 20), "three whole numbers"),
        (("4", "64", "64"), (2, 20, 20), "three whole numbers"),
        (None, (2, 20), "overlap is"),
    ],
)
def test_bad_tiles_are_refused_with_numbers(tile, overlap, message):
    with pytest.raises(UserError, match=message):
        RestoreSettings(tile, overlap).checked(Toy())


@pytest.mark.parametrize("tile", [0, 4])
def test_no_frames(tile):
    with pytest.raises(UserError, match="no frames"):
        list(tiling.time_tiles([], tile, 2))
