"""Colours of classes: their own, the expected, and none twice."""

import numpy as np

from swath.data.chip import IGNORE, Label
from swath.data.palette import class_colours, coloured, rgb


def test_a_label_keeps_its_own_colours():
    label = Label(kind="mask", classes=("a", "b"), colours=("#010203", "#ffffff"))
    assert class_colours(label) == ("#010203", "#ffffff")
    pixels = coloured(np.array([[0, 1, IGNORE]], np.uint8), label)
    assert pixels.tolist() == [[[1, 2, 3, 255], [255, 255, 255, 255], [0, 0, 0, 0]]]


def test_no_two_classes_look_alike():
    names = ("water", "Sea and lake water", "forest", "tree crops", *(f"c{i}" for i in range(20)))
    colours = class_colours(Label(kind="class", classes=names))
    assert len(set(colours)) == len(names)


def test_water_is_blue_and_forest_green():
    water, forest = map(rgb, class_colours(Label(kind="mask", classes=("Water bodies", "forest"))))
    assert max(water) == water[2] and max(forest) == forest[1]


def test_colours_of_unknown_classes_stay_away_from_those_of_known_ones():
    """A blue for "alpha" beside the blue of water could not be told apart on a map."""
    colours = [
        rgb(c) for c in class_colours(Label(kind="mask", classes=("alpha", "beta", "water")))
    ]
    for i, one in enumerate(colours):
        for other in colours[:i]:
            assert np.linalg.norm(np.subtract(one, other)) >= 60
