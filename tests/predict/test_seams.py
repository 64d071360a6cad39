"""No seams: at window borders a map changes no more than elsewhere, in figures."""

import numpy as np
import torch

from swath.predict.map import Mapping
from swath.predict.settings import Predict
from tests.predict.small import untrained, write_scene


def steps(p, borders):
    """Mean probability step, and share of class changes, across ``borders`` and elsewhere."""
    classes = p.argmax(0)
    jump = np.abs(np.diff(p, axis=1)).sum(0).mean(1)  # between row i and row i + 1
    change = (classes[1:] != classes[:-1]).mean(1)
    at = np.zeros(len(jump), bool)
    at[[b - 1 for b in borders if 0 < b <= len(jump)]] = True
    return (jump[at].mean(), jump[~at].mean()), (change[at].mean(), change[~at].mean())


def ratios(scene, model, overlap):
    """Steps at borders over steps elsewhere: (probability, class), rows and columns together."""
    mapping = Mapping(model, scene, Predict(overlap=overlap), torch.device("cpu"))
    p = np.concatenate([means.numpy() for _, means, _ in mapping.strips(0)], axis=1)
    plan, found = mapping.tiling, []
    for axis, starts in ((0, plan.rows), (1, plan.cols)):
        borders = sorted({edge for s in starts for edge in (s, s + plan.tile)})
        turned = p if axis == 0 else p.transpose(0, 2, 1)
        found.append(steps(turned, borders))
    at, elsewhere = np.array(found).mean(0).T
    return at / elsewhere


def test_no_seams_at_window_borders(tmp_path):
    """With the default overlap, borders of windows are like any other line. Without overlap the
    same figures show the seams: the control."""
    with write_scene(tmp_path, height=384, width=384, hole=False).open() as scene:
        model = untrained(size=48)
        smooth = ratios(scene, model, overlap=0.5)
        cut = ratios(scene, model, overlap=0.0)
    print(f"steps at borders / elsewhere: blended {smooth.round(3)}, cut {cut.round(3)}")
    assert (smooth < 1.05).all(), f"probability and class steps at borders: {smooth}"
    assert (cut > 1.3).all(), f"no seams even without overlap ({cut}): the test sees nothing"
