"""No seams: at window borders a map changes no more than elsewhere, in figures."""

import numpy as np
import torch
from torch.nn import functional

from swath.predict.mapping import Mapping
from swath.predict.settings import Predict
from tests.predict.small import untrained, write_scene


def taught(scene, updates=40):
    """A model that has learnt, from windows of the scene, which band is the brightest in the
    pixel's surroundings; as after any training, it is less sure at a window's border."""
    # 50 px every 25: the grid of the network's own halvings, 8 px, falls elsewhere each time.
    model = untrained(size=50)
    image = torch.from_numpy(scene.read().astype(np.float32))
    target = functional.avg_pool2d(image, 9, 1, 4).argmax(0)
    image, generator = (image - 1500) / 400, torch.Generator().manual_seed(0)
    model.network.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=3e-3)
    for _ in range(updates):
        corners = torch.randint(0, image.shape[-1] - 50, (4, 2), generator=generator).tolist()
        windows, truth = (
            torch.stack([a[..., r : r + 50, c : c + 50] for r, c in corners])
            for a in (image, target)
        )
        functional.cross_entropy(model.network(windows), truth).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.network.eval().requires_grad_(False)
    return model


def steps(p, borders):
    """Mean probability step, and share of class changes, across ``borders`` and elsewhere."""
    classes = p.argmax(0)
    jump = np.abs(np.diff(p, axis=1)).sum(0).mean(1)  # between row i and row i + 1
    change = (classes[1:] != classes[:-1]).mean(1)
    at = np.zeros(len(jump), bool)
    at[[b - 1 for b in borders if 0 < b <= len(jump)]] = True
    return (jump[at].mean(), change[at].mean()), (jump[~at].mean(), change[~at].mean())


def ratios(scene, model, overlap):
    """Steps at borders over steps elsewhere: (probability, class), rows and columns together."""
    mapping = Mapping(model, scene, Predict(overlap=overlap), torch.device("cpu"))
    plan, found = mapping.tiling, []
    strips = mapping.strips(range(len(plan.rows)))
    p = np.concatenate([means.numpy() for _, means, _ in strips], axis=1)
    for axis, starts in ((0, plan.rows), (1, plan.cols)):
        borders = {edge for s in starts for edge in (s, s + plan.tile)}
        found.append(steps(p if axis == 0 else p.transpose(0, 2, 1), sorted(borders)))
    at, elsewhere = np.array(found).mean(0)
    return at / elsewhere


def test_no_seams_at_window_borders(tmp_path):
    """With the default overlap, borders of windows are like any other line: the ratio is 1 but for
    chance (sd 0.04 over scenes). Without overlap the same figures show the seams: the control."""
    with write_scene(tmp_path, height=384, width=384, hole=False).open() as scene:
        model = taught(scene)
        smooth = ratios(scene, model, overlap=0.5)
        cut = ratios(scene, model, overlap=0.0)
    print(f"steps at borders / elsewhere: blended {smooth.round(3)}, cut {cut.round(3)}")
    assert (smooth < 1.1).all(), f"probability and class steps at borders: {smooth}"
    assert (cut > 2).all(), f"no seams even without overlap ({cut}): the test sees nothing"
