"""What is seen beside a frame, for motion that is known."""

import numpy as np
import pytest

from rvrt_jax.models import beside


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


def test_second_differences_along_the_motion():
    """Of parabolas: of x^2 they are twice the squared step, of y^2 nothing, for motion along x."""
    y, x = np.mgrid[:16, :32].astype(np.float32)
    picture = np.stack([x**2, y**2, x * y], axis=-1)
    frames = np.broadcast_to(picture, (1, 3, *picture.shape))
    flow = np.zeros((2, 1, 8, 16, 2), np.float32)
    flow[..., 0] = 4  # 8 pixels of the frames
    seen, moved = beside.along_motion(frames, {"forward": -flow, "backward": flow}, 2)
    inside = np.asarray(seen)[0, :, :, 4:-4]
    for i, step in enumerate((2, 4)):
        expected = np.broadcast_to([2 * step**2, 0, 0], inside[..., :3].shape)
        np.testing.assert_allclose(inside[..., 3 * i : 3 * i + 3], expected, atol=1e-3)
    np.testing.assert_allclose(moved[0, 1, 0, 0], [-0.8, 0, 0.8, 0], rtol=1e-6)
