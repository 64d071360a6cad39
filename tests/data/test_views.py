"""Views: what a piece holds, closed forms of resizing, and that draws belong to the sample."""

import numpy as np
import pytest
import torch

from swath.config import ConfigError
from swath.data.augment import Augment, blurred
from swath.data.build import build
from swath.data.settings import DataSettings
from swath.data.split import Split
from swath.data.views import Global, Local, Viewer, Views, pieces, resized
from swath.datasets.synthetic import Synthetic
from swath.models.vit import ViT
from swath.settings import Run
from swath.tasks.contrast import Contrast
from swath.tasks.dino import Dino
from swath.tasks.moco import Moco

PLACES = np.arange(40)
ALL = Augment(
    flips=True, rotations=True, gain=0.1, offset=0.1, noise=0.1, blur=1.0, erase=0.5, drop_bands=0.2
)
VIEWS = Views(global_=Global(size=8, scale=(0.4, 1)), local=Local(number=2, size=5))


def whole(count: int, height: int, width: int) -> np.ndarray:
    return np.array([[0.0, 0.0, height, width]] * count)


def observed(image: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(image, dtype=torch.bool)


def samples(places=PLACES, bands=3, size=12):
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(100, bands, size, size))).float()[places]
    return image, observed(image)


def test_all_of_it_at_its_own_size_is_the_sample():
    image, seen = samples()
    same, there = resized(image, seen, whole(40, 12, 12), 12)
    assert torch.equal(same, image) and there.all()
    asked = Views(global_=Global(number=1, scale=(1, 1)), ratio=1)
    (view,), (there,) = Viewer(asked, Augment())(image, seen, PLACES, 0)
    assert torch.equal(view, image) and there.all()


def test_half_the_size_is_the_mean_of_four_pixels():
    image, seen = samples()
    found, _ = resized(image, seen, whole(40, 12, 12), 6)
    torch.testing.assert_close(found, torch.nn.functional.avg_pool2d(image, 2))


def test_twice_the_size_is_what_torch_interpolates():
    image, seen = samples()
    found, _ = resized(image, seen, whole(40, 12, 12), 24)
    expected = torch.nn.functional.interpolate(image, 24, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("size", [3, 4, 7, 16, 40])
def test_a_piece_of_a_ramp_is_that_ramp(size):
    """Inside the sample, of pieces between the pixels, smaller or larger: in float64 to 1e-12."""
    rows, cols = torch.meshgrid(
        torch.arange(30, dtype=torch.float64), torch.arange(40, dtype=torch.float64), indexing="ij"
    )
    image = (0.3 * rows - 0.7 * cols + 2.0).expand(50, 1, 30, 40)
    rng = np.random.default_rng(1)
    tall, wide = rng.uniform(3, 16, (2, 50))
    boxes = np.stack(
        [8 + rng.uniform(0, 1, 50) * (14 - tall).clip(0), 8 + rng.uniform(0, 8, 50), tall, wide], 1
    )
    boxes[:, 2] = np.minimum(boxes[:, 2], 22 - boxes[:, 0])
    found, there = resized(image, observed(image), boxes, size)
    assert there.all()
    at = torch.from_numpy(boxes)[:, :, None]
    middles = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    y, x = (at[:, axis] + at[:, axis + 2] * middles - 0.5 for axis in (0, 1))
    expected = 0.3 * y[:, :, None] - 0.7 * x[:, None] + 2.0
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [5, 12, 20])
def test_what_was_not_observed_does_not_smear(size):
    """Values are those of a field known everywhere, made of observed pixels alone; elsewhere 0."""
    image = torch.full((40, 2, 12, 12), 3.0)
    seen = observed(image)
    seen[:, 0, :, :5] = False  # of one band only
    seen[::2, 1, 4:7] = False
    boxes = pieces(PLACES, 1, 12, 12, (0.2, 1.0), 4 / 3)
    found, there = resized(image * seen, seen, boxes, size)
    assert there.any() and not there.all() and not torch.equal(there[:, 0], there[:, 1])
    torch.testing.assert_close(found[there], torch.full_like(found[there], 3.0))
    assert (found[~there] == 0).all()
    soft = blurred(found, there, np.linspace(0, 2, 40), 2.0)
    torch.testing.assert_close(soft[there], torch.full_like(soft[there], 3.0))
    assert (soft[~there] == 0).all()


def test_a_blur_has_the_width_asked_for():
    """Of a point: the second moment is the variance; the sum stays 1; 0 changes nothing."""
    image = torch.zeros(3, 1, 41, 41)
    image[:, :, 20, 20] = 1
    soft = blurred(image, observed(image), np.array([0.0, 1.0, 2.0]), 2.0)
    assert torch.equal(soft[0], image[0])
    x = torch.arange(-20.0, 21)
    for view, width in zip(soft[1:, 0], (1.0, 2.0), strict=True):
        assert view.sum().item() == pytest.approx(1, abs=1e-5)
        assert (view.sum(0) @ x**2).item() == pytest.approx(width**2, rel=0.03)


def test_pieces_have_the_areas_and_shapes_asked_for():
    """Of samples that are no squares, too; each lies within its sample."""
    places = np.arange(4000)
    for height, width in ((60, 60), (20, 90)):
        top, left, tall, wide = pieces(places, 3, height, width, (0.2, 0.9), 1.5).T
        assert (top >= 0).all() and (left >= 0).all()
        assert (top + tall <= height + 1e-9).all() and (left + wide <= width + 1e-9).all()
        share = tall * wide / (height * width)
        assert share.min() >= 0.2 - 1e-9 and share.max() <= 0.9 + 1e-9
        assert abs(share.mean() - 0.55) < 5 * 0.7 / 12**0.5 / 4000**0.5
        if height == width:
            assert (wide / tall).min() >= 1 / 1.5 - 1e-9 and (wide / tall).max() <= 1.5 + 1e-9
            assert abs(np.log(wide / tall).mean()) < 0.02
            assert abs((top + tall / 2).mean() - 30) < 0.5


def test_a_samples_views_depend_on_its_position_alone():
    """Together, alone or backwards: to the last bit; views of a sample are not alike."""
    viewer = Viewer(VIEWS, ALL)
    views, seen = viewer(*samples(), PLACES, 7)
    assert [tuple(v.shape[2:]) for v in views] == [(8, 8), (8, 8), (5, 5), (5, 5)]
    for i in (0, 13, 39):
        alone, there = viewer(*samples(PLACES[i : i + 1]), PLACES[i : i + 1], 7)
        for one, every in zip((*alone, *there), (*views, *seen), strict=True):
            assert torch.equal(one[0], every[i])
    assert not torch.equal(views[0], views[1]) and not torch.equal(views[2], views[3])
    assert not torch.equal(viewer(*samples(), PLACES, 8)[0][0], views[0])


def test_a_loader_hands_out_the_same_views_to_any_rank_and_after_a_resume(tmp_path):
    store = tmp_path / "store"
    build(Synthetic(samples=24, size=12), store, Split(by="random"), progress=False)
    data = DataSettings(store=str(store)).open(labels=False)

    def views(start: int, micro: int, ranks: int) -> dict[int, list[bytes]]:
        found = {}
        for rank in range(ranks):
            loader = data.loader("train", micro=micro, seed=3, augment=ALL, views=VIEWS)
            stream = loader.stream(start, 8, rank, ranks)
            for _ in range(8 // micro // ranks):
                batch = next(stream)
                assert [tuple(s.shape) for s in batch.seen] == [
                    (micro, *view.shape[2:]) for view in batch.views
                ]
                for i, position in enumerate(batch.positions.tolist()):
                    found[position] = [view[i].numpy().tobytes() for view in batch.views]
        return found

    one = views(8, 8, 1)
    assert views(8, 2, 2) == views(8, 4, 1) == one and len(one) == 8
    assert views(16, 8, 1) != one

    def swept(seed: int, micro: int) -> list[bytes]:
        loader = data.loader("train", micro=micro, augment=ALL, views=VIEWS)
        return [v.numpy().tobytes() for b in loader.sweep() for v in b.views[0]]

    assert swept(0, 3) == swept(1, 8)  # by the sample alone


def test_resized_pieces_have_no_one_pixel_size():
    """Of whole samples at their own size pixels are as large as they were."""
    data, model = DataSettings(store="s"), ViT(positions="metres")
    for task in (
        Contrast(),
        Moco(),
        Dino(),
        Contrast(views=Views(global_=Global(scale=(1, 1), size=8))),
    ):
        with pytest.raises(ConfigError, match=r"model.positions=metres: task.kind=.* resized"):
            Run(data=data, model=model, task=task)
    Run(data=data, model=model, task=Contrast(views=Views(global_=Global(scale=(1, 1)))))


def test_mistakes_are_clear():
    for call, message in (
        (lambda: Global(scale=(0.5, 0.2)), r"scale=\[0.5, 0.2\] must be shares"),
        (lambda: Global(scale=(0, 1)), r"scale=\[0, 1\] must be shares"),
        (lambda: Local(number=-1), "number=-1 must not be negative"),
        (lambda: Global(size=0), "size=0 at least 1 px"),
        (lambda: Views(global_=Global(number=0)), "global.number=0 must be at least 1"),
        (lambda: Views(ratio=0.5), "ratio=0.5 is that of the longer side, 1 or more"),
        (lambda: Views(local=Local(size=9)), "local.size=9 has no effect with local.number=0"),
        (
            lambda: Viewer(Views(), Augment(crop=32)),
            "augment.crop=32: task.views cuts pieces itself.*task.views.global.size",
        ),
        (lambda: Augment(blur=-1), "blur=-1 must not be negative"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()
