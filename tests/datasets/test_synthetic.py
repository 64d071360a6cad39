"""The invented samples are what they say, and can be learned."""

import numpy as np
import pytest

from swath.config import ConfigError, load
from swath.data.chip import IGNORE
from swath.data.dataset import Dataset
from swath.datasets.synthetic import Synthetic


def test_a_sample_follows_from_seed_and_number_alone():
    """Order of reading and the number of samples read before must not enter."""
    one, other = (Synthetic(samples=9, seed=3, coarse=2).open() for _ in range(2))
    later = other.chip(7)
    other.chip(0)
    chip = one.chip(7)
    for name, image in chip.images.items():
        np.testing.assert_array_equal(image, later.images[name])
    assert not np.array_equal(
        chip.images["fine"], Synthetic(samples=9, seed=4).open().chip(7).images["fine"]
    )


@pytest.mark.parametrize("label", ["class", "flags", "mask", "value", "raster", "none"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_samples_have_the_announced_shapes(label, dtype):
    """The builder trusts ``contents``."""
    source = Synthetic(samples=5, label=label, dtype=dtype, coarse=1, size=16).open()
    chip = source.chip(4)
    for modality in source.contents.modalities:
        image = chip.images[modality.name]
        bands = len(modality.sensor.bands)
        assert image.shape == (bands, modality.height, modality.width)
        assert image.dtype == modality.dtype
        assert set(modality.sensor.colour) <= {b.name for b in modality.sensor.bands}
    shape = {"flags": (3,), "value": (3,), "mask": (16, 16), "raster": (3, 16, 16)}
    assert np.shape(chip.label) == shape.get(label, ())
    assert set(chip.groups) == set(source.contents.groupings)


def test_classes_are_learned_from_one_pixel_by_the_nearest_mean():
    """At little noise the spectra tell the classes apart: 99 of 100 pixels."""
    source = Synthetic(samples=16, noise=0.05).open()
    chips = [source.chip(i) for i in range(16)]
    x = np.concatenate([c.images["fine"].reshape(4, -1) for c in chips], 1).T.astype(float)
    y = np.concatenate([np.ravel(c.label) for c in chips])
    means = np.stack([x[y == k].mean(0) for k in range(3)])
    guess = np.linalg.norm(x[:, None] - means, axis=2).argmin(1)
    assert (guess == y).mean() > 0.99


def test_no_data_and_unlabelled_come_as_often_as_asked():
    """Shares within three standard errors."""
    source = Synthetic(samples=100, nodata=0.5, unlabelled=0.3, size=16).open()
    chips = [source.chip(i) for i in range(100)]
    corners = [np.all(c.images["fine"][:, :8, :8] == 0) for c in chips]
    assert abs(np.mean(corners) - 0.5) < 0.15
    assert not any((c.images["fine"][:, 8:] == 0).any() for c in chips)
    assert abs(np.mean([np.mean(c.label == IGNORE) for c in chips]) - 0.3) < 0.01


def test_contradicting_settings_are_refused():
    """A setting without effect is an error."""
    with pytest.raises(ConfigError, match=r"unlabelled=0.1 has no effect on label=class"):
        Synthetic(label="class", unlabelled=0.1)
    with pytest.raises(ConfigError, match="size=9 must be even"):
        Synthetic(size=9, coarse=1)
    assert load(Dataset, (), ["kind=synthetic", "bands=7"]) == Synthetic(bands=7)
