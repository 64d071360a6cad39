"""Augmenting: keyed by position, images and masks together, no-data left alone."""

import numpy as np
import pytest
import torch

from swath.config import ConfigError
from swath.data.augment import Augment

PLACES = np.arange(40)
ALL = Augment(
    flips=True, rotations=True, crop=6, gain=0.1, offset=0.1, noise=0.1, erase=0.5, drop_bands=0.2
)


def samples(places=PLACES, bands=3, size=8):
    """Images whose first band is the mask, so that what happens to both can be compared."""
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(100, bands, size, size))).float()[places]
    mask = torch.from_numpy(rng.integers(1, 5, (100, size, size)))[places]
    image[:, 0] = mask.float()
    return image, torch.ones_like(image, dtype=torch.bool), mask


def test_nothing_is_the_default():
    image, observed, mask = samples()
    again, *rest = Augment()(image, observed, mask, PLACES, 0)
    assert again is image and rest[0] is observed and rest[1] is mask


def test_a_sample_varies_by_its_position_alone():
    """Together, alone or backwards: the same sample at the same position looks the same."""
    whole, seen, masks = ALL(*samples(), PLACES, 7)
    for i in (0, 13, 39):
        one, observed, mask = ALL(*samples(PLACES[i : i + 1]), PLACES[i : i + 1], 7)
        assert torch.equal(one[0], whole[i]) and torch.equal(mask[0], masks[i])
        assert torch.equal(observed[0], seen[i])
    other, *_ = ALL(*samples(), PLACES + 1000, 7)
    assert not any(torch.equal(a, b) for a, b in zip(other, whole, strict=True))
    assert not torch.equal(ALL(*samples(), PLACES, 8)[0], whole)


def test_masks_follow_images():
    image, observed, mask = Augment(flips=True, rotations=True, crop=5)(*samples(), PLACES, 3)
    assert image.shape == (40, 3, 5, 5) and mask.shape == (40, 5, 5) and observed.all()
    assert torch.equal(image[:, 0], mask.float())


def test_rasters_follow_and_other_targets_stay():
    image, observed, _mask = samples()
    vary = Augment(flips=True, rotations=True)
    turned, _, raster = vary(image, observed, image[:, :2].clone(), PLACES, 3)
    assert torch.equal(turned[:, :2], raster)
    for target in (torch.arange(40), torch.ones(40, 5)):
        assert vary(image, observed, target, PLACES, 3)[2] is target
    assert vary(image, observed, None, PLACES, 3)[2] is None


def test_turns_are_the_eight_symmetries_equally_often():
    """Each turned sample is one of the 8 images of the original; all 8 occur, about as often."""
    places = np.arange(4000)
    image = torch.arange(9.0).reshape(1, 1, 3, 3).expand(4000, 1, 3, 3)
    seen = torch.ones_like(image, dtype=torch.bool)
    turned, *_ = Augment(flips=True, rotations=True)(image, seen, None, places, 1)
    eight = [torch.rot90(m, k, (1, 2)) for m in (image[0], image[0].flip(-1)) for k in range(4)]
    counts = [int((turned == e).all(-1).all(-1).sum()) for e in eight]
    assert sum(counts) == 4000 and np.abs(np.array(counts) - 500).max() < 5 * np.sqrt(500)


def test_crops_come_from_everywhere():
    places = np.arange(2000)
    rows = torch.arange(8.0)[:, None].expand(8, 8)
    image = torch.stack([rows, rows.T]).expand(2000, 2, 8, 8)
    cut, *_ = Augment(crop=6)(image, torch.ones_like(image, dtype=torch.bool), None, places, 1)
    corners, counts = torch.unique(cut[:, :, 0, 0], dim=0, return_counts=True)
    assert len(corners) == 9 and (counts - 2000 / 9).abs().max() < 5 * np.sqrt(2000 / 9)


def test_what_was_not_observed_stays_0():
    image, observed, mask = samples()
    observed[:, :, :3] = False
    image = image * observed
    varied, seen, _ = ALL(image, observed, mask, PLACES, 0)
    assert (varied[~seen] == 0).all() and seen.any() and not seen.all()


def test_colour_has_the_deviations_asked_for():
    """Of gain, offset and noise, over 4,000 samples; each band draws its own."""
    places = np.arange(4000)
    image = torch.full((4000, 2, 4, 4), 2.0)
    seen = torch.ones_like(image, dtype=torch.bool)
    for vary, expected in (
        (Augment(gain=0.1), 0.2),
        (Augment(offset=0.3), 0.3),
        (Augment(noise=0.5), 0.5),
    ):
        found, *_ = vary(image, seen, None, places, 5)
        change = found - image
        assert abs(change[:, :, 0, 0].std().item() / expected - 1) < 0.05
        assert abs(np.corrcoef(change[:, 0, 0, 0], change[:, 1, 0, 0])[0, 1]) < 5 / np.sqrt(4000)
        constant = bool((change[:, :, 0, 0] == change[:, :, 3, 3]).all())
        assert constant is (vary.noise == 0)


def test_each_kind_of_variation_has_draws_of_its_own():
    """Gain, offset and noise of one pixel have nothing to do with one another."""
    places, one = np.arange(4000), torch.ones(4000, 1, 1, 1)
    observed = torch.ones_like(one, dtype=torch.bool)
    varied = [
        vary(one, observed, None, places, 1)[0].flatten() - 1
        for vary in (Augment(gain=1.0), Augment(offset=1.0), Augment(noise=1.0))
    ]
    alike = torch.corrcoef(torch.stack(varied)) - torch.eye(3)
    assert alike.abs().max() < 5 / np.sqrt(4000)


def test_erasing_and_dropping_happen_as_often_as_asked():
    places = np.arange(2000)
    image = torch.ones(2000, 3, 16, 16)
    seen = torch.ones_like(image, dtype=torch.bool)
    erased, observed, _ = Augment(erase=0.3)(image, seen, None, places, 2)
    hit = (erased == 0).any(-1).any(-1).any(-1)
    assert abs(hit.float().mean().item() - 0.3) < 0.05 and torch.equal(erased == 0, ~observed)
    area = (erased[hit][:, 0] == 0).float().mean((1, 2))
    assert area.min() >= 0.01 and area.max() <= 0.25
    dropped, observed, _ = Augment(drop_bands=0.6)(image, seen, None, places, 2)
    kept = dropped[:, :, 0, 0]
    assert observed.all() and kept.any(1).all()  # a band always stays
    expected = 0.4 + 0.6**3 / 3
    assert (kept.mean(0) - expected).abs().max() < 0.06


def test_mistakes_are_clear():
    for settings, message in [
        ({"erase": 1.0}, "erase=1.0 must be a probability below 1"),
        ({"gain": -0.1}, "gain=-0.1 must not be negative"),
        ({"crop": 0}, "crop=0 must be at least 1 pixel"),
    ]:
        with pytest.raises(ConfigError, match=message):
            Augment(**settings)
    with pytest.raises(ConfigError, match=r"crop=9 is larger than the samples, 8 x 8"):
        Augment(crop=9).size(8, 8)
    with pytest.raises(ConfigError, match=r"rotations need square samples, these are 8 x 9"):
        Augment(rotations=True).size(8, 9)
    assert Augment(rotations=True, crop=4).size(8, 9) == (4, 4)
