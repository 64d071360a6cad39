"""Bringing coarse bands to the finest grid: exact cases, and no-data kept apart."""

import numpy as np
import pytest
import torch

from swath.data.resample import resized


def test_nearest_repeats_pixels():
    image = torch.arange(8.0).reshape(1, 2, 2, 2)
    found, seen = resized(image, image > 0, (6, 6), "nearest")
    assert torch.equal(found, image.repeat_interleave(3, 2).repeat_interleave(3, 3))
    assert torch.equal(seen, found > 0)


def test_bilinear_keeps_planes_and_places():
    """A plane, sampled at pixel centres, is the same plane on the finer grid (but for the rim)."""

    def plane(n):
        centre = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        return (2 * centre[:, None] + 3 * centre)[None, None]

    found, _ = resized(plane(8), torch.ones(1, 1, 8, 8, dtype=torch.bool), (24, 24), "bilinear")
    torch.testing.assert_close(found[..., 2:-2, 2:-2], plane(24)[..., 2:-2, 2:-2])


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(12, 12), (5, 7), (2, 3)])
def test_no_data_is_never_mixed_in(method, size):
    """What is observed is 5 everywhere; it stays 5 however no-data lies, and the rest is 0."""
    observed = torch.from_numpy(np.random.default_rng(0).random((3, 2, 4, 4)) > 0.4)
    found, seen = resized(5.0 * observed, observed, size, method)
    assert found.shape[-2:] == size and seen.any() and not seen.all()
    torch.testing.assert_close(found, 5.0 * seen)


def test_a_band_on_the_grid_is_left_alone():
    image = torch.rand(1, 2, 4, 4)
    assert resized(image, image > 0, (4, 4), "bilinear")[0] is image
