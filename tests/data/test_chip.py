"""What a label is of."""

import numpy as np
import pytest

from swath.data.chip import IGNORE, Label


@pytest.mark.parametrize(
    ("kind", "per_pixel", "classes", "quantities"),
    [
        ("class", False, True, False),
        ("flags", False, True, False),
        ("mask", True, True, False),
        ("value", False, False, True),
        ("raster", True, False, True),
        ("none", False, False, False),
    ],
)
def test_a_label_says_what_it_is_of(kind, per_pixel, classes, quantities):
    label = Label(kind=kind)
    assert (label.per_pixel, label.has_classes, label.has_quantities) == (
        per_pixel,
        classes,
        quantities,
    )


def test_a_pixel_of_a_raster_is_known_in_all_its_quantities():
    raster = np.array([[[1.0, np.nan]], [[2.0, 3.0]]])  # two quantities of 1 x 2 px
    assert Label(kind="raster").known(raster).tolist() == [[True, False]]
    assert Label(kind="mask").known(np.array([[0, IGNORE]])).tolist() == [[True, False]]
