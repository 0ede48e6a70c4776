"""Attention windows: partition, its inverse, shift masks, relative positions, by brute force."""

import itertools

import numpy as np
import pytest

from rvrt_jax.ops import window as win

CASES = [  # size, window, shift
    ((2, 8, 8), (2, 4, 4), (0, 2, 2)),
    ((4, 6, 15), (2, 3, 5), (1, 1, 2)),
    ((3, 5, 12), (1, 5, 4), (0, 0, 2)),
    ((6, 4, 4), (2, 4, 4), (1, 0, 0)),
    ((1, 9, 7), (1, 3, 7), (0, 1, 0)),
]


def tokens(window):
    return list(itertools.product(*(range(n) for n in window)))


@pytest.mark.parametrize(("size", "window"), [case[:2] for case in CASES])
def test_merge_inverts_partition(size, window):
    x = np.arange(2 * np.prod(size) * 3).reshape(2, *size, 3)
    windows = win.partition(x, window)
    assert windows.shape == (2, np.prod(size) // np.prod(window), np.prod(window), 3)
    np.testing.assert_array_equal(win.merge(windows, window, size), x)


def test_windows_and_tokens_are_ordered_t_y_x():
    size, window = (4, 6, 15), (2, 3, 5)
    places = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    windows = np.asarray(win.partition(places[None], window))[0]
    starts = itertools.product(*(range(0, s, n) for s, n in zip(size, window, strict=True)))
    expected = [[np.add(start, token) for token in tokens(window)] for start in starts]
    np.testing.assert_array_equal(windows, expected)


@pytest.mark.parametrize(("size", "window", "shift"), CASES)
def test_sides_part_what_the_roll_brought_together(size, window, shift):
    """After a roll by -shift, what came round from the start must not be seen by the rest.

    Inside one window that is the whole rule, so it needs no labels.
    """
    starts = list(itertools.product(*(range(0, s, n) for s, n in zip(size, window, strict=True))))
    expected = np.zeros((len(starts), np.prod(window), np.prod(window)), bool)
    for number, start in enumerate(starts):
        came_round = [
            tuple(
                place >= s - move
                for place, s, move in zip(np.add(start, o), size, shift, strict=True)
            )
            for o in tokens(window)
        ]
        for a, b in itertools.product(range(len(came_round)), repeat=2):
            expected[number, a, b] = came_round[a] != came_round[b]
    sides = np.asarray(win.shift_sides(size, window, shift))
    apart = (sides[:, :, None] != sides[:, None]).any(-1)
    np.testing.assert_array_equal(apart, expected)


@pytest.mark.parametrize("window", [(1, 1, 1), (2, 3, 5), (3, 2, 2), (1, 4, 1)])
def test_relative_position_index(window):
    table = tuple(2 * n - 1 for n in window)
    expected = [
        [
            np.ravel_multi_index(np.subtract(query, key) + np.subtract(window, 1), table)
            for key in tokens(window)
        ]
        for query in tokens(window)
    ]
    index = np.asarray(win.relative_position_index(window))
    np.testing.assert_array_equal(index, expected)
    assert len(np.unique(index)) == np.prod(table)  # every row of the table is used


@pytest.mark.parametrize(
    ("size", "fitted", "shift"),
    [
        ((2, 9, 17), (2, 8, 8), (0, 4, 4)),  # as large as the window: no shift
        ((4, 8, 5), (2, 8, 5), (1, 0, 0)),
        ((1, 1, 9), (1, 1, 8), (0, 0, 4)),
    ],
)
def test_window_shrinks_to_small_features(size, fitted, shift):
    assert win.fit_window(size, (2, 8, 8), shifted=True) == (fitted, shift)
    assert win.fit_window(size, (2, 8, 8), shifted=False) == (fitted, (0, 0, 0))
