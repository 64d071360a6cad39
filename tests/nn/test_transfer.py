"""Weights made to fit: places by closed forms, patches by enlarged images, bands by sums."""

import pytest
import torch
import torch.nn.functional as F

from swath.nn.transfer import bands, patches, places, shared

S2 = {"B02": 490.0, "B03": 560.0, "B04": 665.0}


def test_places_on_a_ramp_stay_on_it():
    """Bicubic stretching keeps what is linear, away from the border, between pixel centres."""
    rows = torch.arange(8, dtype=torch.float64)
    table = torch.stack([rows.repeat_interleave(8), rows.repeat(8)], 1)
    found = places(table, (8, 8), (16, 16)).reshape(16, 16, 2)
    centres = (torch.arange(16, dtype=torch.float64) + 0.5) / 2 - 0.5
    inside = slice(5, 11)
    expected = torch.stack(torch.meshgrid(centres, centres, indexing="ij"), 2)
    torch.testing.assert_close(found[inside, inside], expected[inside, inside])


def test_the_class_tokens_place_is_kept_added_or_left_out():
    table = torch.randn(17, 6)
    assert torch.equal(places(table, (4, 4), (4, 4), (1, 1)), table)
    assert torch.equal(places(table, (4, 4), (4, 4), (1, 0)), table[1:])
    with_one = places(table[1:], (4, 4), (4, 4), (0, 1))
    assert torch.equal(with_one[1:], table[1:]) and not with_one[0].any()
    larger = places(table, (4, 4), (6, 6), (1, 1))
    assert larger.shape == (37, 6) and torch.equal(larger[0], table[0])


@pytest.mark.parametrize("size", [6, 8, 13])
def test_a_patch_enlarged_with_its_image_gives_the_token_that_it_gave(size):
    weight, patch = torch.randn(5, 3, 4, 4).double(), torch.randn(1, 3, 4, 4).double()
    enlarged = F.interpolate(patch, size=(size, size), mode="bilinear")
    before = torch.einsum("ocij,bcij->bo", weight, patch)
    after = torch.einsum("ocij,bcij->bo", patches(weight, size), enlarged)
    torch.testing.assert_close(after, before)


def test_patches_made_smaller_are_right_for_smooth_images():
    """What 4 pixels cannot show is lost; a flat patch they can."""
    weight = torch.randn(5, 3, 8, 8).double()
    torch.testing.assert_close(patches(weight, 4).sum((2, 3)), weight.sum((2, 3)))


def test_bands_in_another_order_are_exactly_those_bands():
    weight = torch.randn(4, 3, 2, 2)
    shares, told = shared(S2, dict(reversed(S2.items())), "nearest")
    assert torch.equal(bands(weight, shares), weight.flip(1)) and told == []


def test_a_new_band_shares_the_weights_of_the_nearest_one():
    """So where both bands see the same, the token is what it was."""
    weight = torch.randn(4, 3, 2, 2)
    shares, told = shared(S2, {**S2, "B05": 705.0, "B06": 740.0}, "nearest")
    found = bands(weight, shares)
    assert torch.equal(found[:, :2], weight[:, :2])
    torch.testing.assert_close(found[:, 2:].sum(1), weight[:, 2])
    torch.testing.assert_close(found[:, 2], found[:, 4])
    assert told == ["B05 shares B04", "B06 shares B04"]


def test_a_band_without_wavelength_is_the_mean_and_zero_is_zero():
    weight = torch.randn(4, 3, 2, 2)
    shares, told = shared(S2, {"VV": None, **S2}, "nearest")
    torch.testing.assert_close(bands(weight, shares)[:, 0], weight.mean(1))
    assert told == ["VV is the mean"]
    shares, told = shared(S2, {"VV": None, "B08": 842.0, **S2}, "zero")
    found = bands(weight, shares)
    assert not found[:, :2].any() and torch.equal(found[:, 2:], weight)
    assert told == ["VV is zero", "B08 is zero"]
