"""What is seen beside a frame, for motion that is known."""

import numpy as np
import pytest

from rvrt_jax.models import beside
from tests.helpers.waves import shaken_waves


@pytest.mark.parametrize("stride", [2, 4])
def test_warped_neighbours_of_a_moving_picture(stride):
    """A picture that moves by whole pixels: its neighbours, warped, differ at the border alone."""
    step = 2 * stride  # pixels a frame to the right
    wide = np.random.default_rng(0).random((16, 40, 3), np.float32)
    frames = np.stack([wide[:, 16 - step * i :][:, :24] for i in range(3)])[None]
    flow = np.zeros((2, 1, 16 // stride, 24 // stride, 2), np.float32)
    flow[..., 0] = 2
    seen, moved = beside.neighbours(frames, {"forward": -flow, "backward": flow}, stride)
    before, behind = seen[0, ..., :3], seen[0, ..., 3:]
    assert not np.any(before[0]) and not np.any(behind[-1])
    np.testing.assert_allclose(before[1:, :, step:], 0, atol=1e-6)
    np.testing.assert_allclose(behind[:-1, :, :-step], 0, atol=1e-6)
    # Beyond the border the last column is repeated.
    edge = frames[0, :-1, :, :1] - frames[0, 1:, :, :step]
    np.testing.assert_allclose(before[1:, :, :step], edge, atol=1e-6)
    expected = np.zeros((3, 4))
    expected[1:, 0], expected[:-1, 2] = -step / 10, step / 10
    np.testing.assert_allclose(moved[0], np.broadcast_to(expected[:, None, None], moved[0].shape))


def test_what_the_filter_gives_back_of_parabolas(monkeypatch):
    """Second differences of x^2 are twice the squared step, of y^2 nothing, for motion along x."""
    y, x = np.mgrid[:16, :48].astype(np.float32)
    picture = np.stack([x**2, y**2, x * y], axis=-1)
    frames = np.broadcast_to(picture, (1, 3, *picture.shape))
    flow = np.zeros((2, 1, 8, 24, 2), np.float32)
    flow[..., 0] = 4  # 8 pixels of the frames
    # Neighbours that are warped by 8 pixels are parabolas as well.
    for open_share in (1.0, 0.5):
        monkeypatch.setattr(beside, "open_share", lambda *_, share=open_share: share)
        seen, moved = beside.along_motion(frames, {"forward": -flow, "backward": flow}, 2)
        own, theirs, most = (
            sum(weight * 2 * (motion * step) ** 2 for step, weight in weights)
            for weights, motion in (
                (beside.OWN, 8 * open_share),
                (beside.THEIRS, 8 * open_share),
                (beside.OWN, 8),
            )
        )
        inside = np.asarray(seen)[0, :, :, 16:-16]
        expected = np.broadcast_to([own + theirs, 0, 0, most, 0, 0], inside.shape)
        np.testing.assert_allclose(inside, expected, atol=4e-3)
        expected = [[0.8 * open_share, 0, 0, 0]] * 3
        np.testing.assert_allclose(moved[0, :, 0, 0], expected, atol=1e-6)


def test_the_filter_sharpens_what_a_shaking_camera_blurred():
    """Two fifths of the blur's error go, also where a quarter of the flow is wrong."""
    blurred, sharp, velocity = shaken_waves(open_share=1.0)
    places = np.broadcast_to(velocity[:, None, None, None], (6, 1, 16, 16, 2)) / 2
    to_behind, to_before = places[:-1] / 2 + places[1:] / 2, -places[:-1] / 2 - places[1:] / 2
    for wrong in (False, True):
        flows = {"forward": to_before.copy(), "backward": to_behind[::-1].copy()}
        if wrong:
            for flow in flows.values():
                flow[..., :8, 8:, :] = (-1, 2)
        seen, _ = beside.along_motion(blurred[None], flows, 2)
        made = blurred + np.asarray(seen)[0, ..., :3]
        inside = (slice(1, -1), slice(8, -8), slice(8, -8))
        before, after = (np.std((x - sharp)[inside]) for x in (blurred, made))
        assert after < 0.6 * before


def test_the_motion_of_most_of_a_frame():
    """A third that moves by itself does not change it; brute force finds the same point."""
    rng = np.random.default_rng(0)
    motion = np.array([3.0, -5.0], np.float32) + 0.01 * rng.standard_normal((9, 7, 2))
    motion[:3] = 20.0
    found = np.asarray(beside.common_motion(motion.astype(np.float32)))
    assert found.shape == (1, 1, 2)
    np.testing.assert_allclose(found[0, 0], [3, -5], atol=0.1)
    grid = np.stack(np.meshgrid(np.linspace(2.8, 3.2, 41), np.linspace(-5.2, -4.8, 41)), axis=-1)
    sums = np.linalg.norm(grid[:, :, None] - motion.reshape(-1, 2), axis=-1).sum(axis=-1)
    best = grid[np.unravel_index(sums.argmin(), sums.shape)]
    np.testing.assert_allclose(found[0, 0], best, atol=0.1)


def test_one_frame_alone_has_no_differences():
    frames = np.random.default_rng(0).random((2, 1, 8, 8, 3), np.float32)
    none = np.zeros((0, 2, 4, 4, 2), np.float32)
    for look in (beside.neighbours, beside.along_motion):
        seen, moved = look(frames, {"forward": none, "backward": none}, 2)
        assert seen.shape == (2, 1, 8, 8, 6) and not np.any(seen) and not np.any(moved)


@pytest.mark.parametrize("by", [(0.0, 0.0), (1.0, -2.0), (0.3, 0.5), (-1.7, 2.25), (40.0, -40.0)])
def test_a_shifted_picture(by):
    """Parabolas are shifted exactly; beyond the border its pixels are repeated."""
    y, x = np.mgrid[:9, :13].astype(np.float32)
    shifted = np.asarray(beside.shifted(np.stack([x * x, y, x * y], axis=-1), np.array(by)))
    if max(np.abs(by)) > 20:
        corner = np.array([144, 0, 0], np.float32)
        np.testing.assert_allclose(shifted, np.broadcast_to(corner, shifted.shape), atol=1e-4)
        return
    inside = (slice(4, -4), slice(4, -4))
    u, v = x + by[0], y + by[1]
    expected = np.stack([u * u, v, u * v], axis=-1)[inside]
    np.testing.assert_allclose(shifted[inside], expected, rtol=1e-5, atol=1e-4)
