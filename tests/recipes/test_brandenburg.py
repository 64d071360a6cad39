"""The Brandenburg recipe: what its check says of made-up figures."""

import numpy as np

from tests.recipes.claims import check_of


def rows(oa, balanced=0.55):
    forests = {"forest, pixel": (0.6, 0.5), "forest, pixel, balanced": (0.58, 0.52)}
    methods = {"unet": (oa, balanced), **forests}
    return {name: {"oa": a, "balanced": b} for name, (a, b) in methods.items()}


def test_the_check_says_whether_the_claim_holds():
    """The mean decides, against the best forest of each figure; both figures must be ahead."""
    check = check_of("brandenburg")
    holds, said = check.claim([rows(0.55), rows(0.66), rows(0.62)])
    assert holds and "oa: unet 0.610 beats forest, pixel 0.600." in said
    assert "balanced: unet 0.550 beats forest, pixel, balanced 0.520." in said
    holds, said = check.claim([rows(0.55), rows(0.64), rows(0.6)])
    assert not holds and "oa: unet 0.597 does not beat forest, pixel 0.600." in said
    assert not check.claim([rows(0.7, 0.5)])[0]


def test_the_table_has_a_column_a_seed():
    said = check_of("brandenburg").table([rows(0.55), rows(0.66)])
    head, _, unet, *_ = said.split("\n")
    assert head == "| method, overall / balanced accuracy | seed 0 | seed 1 | mean | sd |"
    spread = np.std([0.55, 0.66], ddof=1)
    assert unet == (
        f"| unet | 0.550 / 0.550 | 0.660 / 0.550 | 0.605 / 0.550 | {spread:.3f} / 0.000 |"
    )
