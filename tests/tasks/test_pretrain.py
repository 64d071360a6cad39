"""What pretraining hides, and what of it counts."""

import dataclasses

import numpy as np
import pytest
import torch

from swath.config import ConfigError
from swath.data import draw
from swath.data.build import build
from swath.data.chip import Batch, Known, Label
from swath.data.draw_tensor import orders
from swath.data.sensor import groups_of, load_sensor
from swath.data.settings import DataSettings
from swath.data.split import Split
from swath.datasets.synthetic import Synthetic
from swath.models import Inputs, Outputs
from swath.models.mae import MAE
from swath.models.unet import UNet
from swath.models.vit import ViT
from swath.nn.mae import joined, patches_of
from swath.predict.layers import check_mappable
from swath.tasks.pretrain import Pretrain, moments
from tests import laws

(CASE,) = (case for case in laws.cases() if isinstance(case.task, Pretrain))
TASK = CASE.objective()


def test_masks_keyed_by_the_place_in_the_microbatch_break_the_law(monkeypatch):
    """The control: the first of each microbatch would always be hidden alike."""
    plain = laws.Case.batch

    def by_place(case, positions):
        batch = plain(case, positions)
        return dataclasses.replace(batch, keys=torch.arange(len(positions)))

    monkeypatch.setattr(laws.Case, "batch", by_place)
    with pytest.raises(AssertionError, match="not close"):
        laws.accumulation_changes_nothing(CASE)


def test_masks_are_drawn_evenly_and_apart():
    """Every patch is as often in every place of the order, and samples have orders of their own."""
    keys = torch.from_numpy(draw.keys(1, np.arange(4000), "task"))
    found = orders(keys, 9)
    assert torch.equal(found.sort(1).values, torch.arange(9).expand(4000, -1))
    counts = torch.stack([torch.bincount(column, minlength=9) for column in found.T])
    assert (counts - 4000 / 9).abs().max() < 5 * (4000 / 9) ** 0.5
    assert len({tuple(row) for row in found.tolist()}) > 3900
    assert not torch.equal(
        found, orders(torch.from_numpy(draw.keys(2, np.arange(4000), "task")), 9)
    )


def test_evaluation_hides_the_same_whatever_the_runs_seed(tmp_path):
    """A sample's index alone decides, in sweeps; in training the seed and the position do."""
    store = tmp_path / "store"
    build(Synthetic(samples=20, size=4), store, Split(by="random"), progress=False)
    data = DataSettings(store=str(store)).open(labels=False)

    def keys(seed: int, micro: int, **sweep) -> list[int]:
        loader = data.loader("train", micro=micro, seed=seed)
        batches = loader.sweep() if sweep else loader.stream(0, 8)
        found = [next(batches) for _ in range(8 // micro)]
        assert all(batch.target is None for batch in found)
        return torch.cat([batch.keys for batch in found]).tolist()

    assert keys(0, 4, sweep=True) == keys(0, 2, sweep=True)
    assert keys(3, 4) == keys(3, 2) != keys(4, 4)


@torch.no_grad()
@pytest.mark.parametrize("normalise", [True, False])
def test_what_was_not_observed_is_no_target(normalise):
    """Whatever stands there: it counts in no loss, no score and no mean of its patch."""
    task = Pretrain(normalise=normalise).bind(CASE.label, None, laws.INPUTS)
    model, batch = CASE.model(0.0), CASE.batch(range(6))
    shown, _ = task.drawn(model, batch)
    told, weight = task.loss(model, batch)
    # Only where it is hidden: what is shown reaches the network, as 0 from the loader.
    side = laws.SIZE // 2
    hidden = torch.ones(6, side * side).scatter(1, shown, 0.0).view(6, 1, side, side)
    hidden = hidden.repeat_interleave(2, 2).repeat_interleave(2, 3).bool()
    image = torch.where(hidden & ~batch.valid[:, None], 1e3, batch.image)
    assert not torch.equal(image, batch.image)
    other = dataclasses.replace(batch, image=image)
    assert task.loss(model, other)[0] == told
    assert weight == (hidden[:, 0] & batch.valid).sum() > 0
    assert task.score(model, other).finish() == task.score(model, batch).finish()


@torch.no_grad()
@pytest.mark.parametrize("decoder", ["full", "cross"])
@pytest.mark.parametrize(("mask", "ratio"), [("spectral", 0.4), ("both", 0.7)])
def test_hidden_bands_are_asked_for_and_nothing_else(decoder, mask, ratio):
    """The loss against one written out, value by value, from the draws; what is hidden does not
    reach the network, and what was shown or not observed is no target."""
    settings = MAE(
        patch=2, width=8, depth=1, heads=2, decoder_depth=1, decoder_heads=2, decoder=decoder,
        mask=mask, band_ratio=ratio, predicted=1.0 if decoder == "cross" else None,
    )  # fmt: skip
    task = Pretrain(normalise=False).bind(CASE.label, None, laws.INPUTS)
    model, batch = made(settings).double(), CASE.batch(range(6))
    kept, (shown, asked) = task.kept(model, batch), task.drawn(model, batch)
    patches = (laws.SIZE // 2) ** 2
    assert kept.sum(1).tolist() == [2 if mask == "spectral" else 1] * 6  # of 3 bands
    assert len(torch.unique(kept, dim=0)) > 1 and len(asked[0]) == (0 if mask == "spectral" else 7)
    total, weight = task.loss(model, batch)
    image = batch.image * kept[:, :, None, None]
    found = model(image, shown, asked, both=True).unflatten(2, (4, 3))
    cut = patches_of(batch.image, 2).unflatten(2, (4, 3))
    seen = patches_of(batch.valid[:, None], 2)
    squares, count = 0.0, 0
    for b in range(6):
        for place, number in enumerate([*shown[b].tolist(), *asked[b].tolist()]):
            for pixel in range(4):
                for band in range(3):
                    known = place < shown.shape[1] and kept[b, band]
                    if not known and seen[b, number, pixel]:
                        squares += (found[b, place, pixel, band] - cut[b, number, pixel, band]) ** 2
                        count += 1
    assert shown.shape[1] + asked.shape[1] == patches
    assert total.item() == pytest.approx(squares.item() / 3) and weight.item() * 3 == count
    figures = task.score(model, batch).finish()
    assert figures["loss"] == pytest.approx((total / weight).item())
    # A value that is shown is no target, one that is hidden reaches no output.
    hidden = torch.zeros(6, patches, dtype=torch.bool).scatter(1, asked, True)
    pixels = joined(hidden[..., None].expand(-1, -1, 4), (3, 3), 1) | ~kept[:, :, None, None]
    other = dataclasses.replace(batch, image=torch.where(pixels, batch.image + 9, batch.image))
    again = model(other.image * kept[:, :, None, None], shown, asked, both=True)
    assert torch.equal(again, found.flatten(2))
    filled, _ = task.filled(model, batch)
    assert torch.equal(filled[~pixels.expand_as(filled)], batch.image[~pixels.expand_as(filled)])


SATMAE = ("B02 B03 B04 B08", "B05 B06 B07 B8A", "B11 B12")
"""Groups of Sentinel-2's bands in Cong et al. 2022, arXiv:2207.08051, who leave out the others."""


@pytest.mark.parametrize(
    ("sensor", "groups"),
    [
        ("sentinel2_l2a", (*SATMAE, "B01 B09")),
        ("sentinel2_l1c", (*SATMAE, "B01 B09", "B10")),
        ("landsat8_oli", ("B1 B2 B3 B4 B5", "B6 B7 B9", "B8", "B10 B11")),
        ("sentinel1_grd", ("VV", "VH")),  # nothing tells them apart
        ("rgb", ("red", "green", "blue")),
    ],
)
def test_bands_are_grouped_by_pixel_size_and_region(sensor, groups):
    bands = load_sensor(sensor).bands
    found: dict[int, list[str]] = {}
    for band, group in zip(bands, groups_of(bands), strict=True):
        found.setdefault(group, []).append(band.name)
    assert sorted(map(" ".join, found.values())) == sorted(
        " ".join(b.name for b in bands if b.name in group.split()) for group in groups
    )


@torch.no_grad()
def test_bands_of_a_group_are_hidden_as_one():
    """By draws of the samples' keys alone, each group as often; of a further sensor its own."""
    bands = load_sensor("sentinel2_l2a").bands
    inputs = Inputs(bands=bands, size=8)
    settings = MAE(patch=4, width=8, depth=1, heads=2, mask="spectral", band_groups=True)
    task = Pretrain().bind(Label(kind="none"), None, inputs)
    model = settings.build(inputs, task.outputs)
    at, groups = torch.arange(600), torch.tensor(groups_of(bands))
    batch = Batch(
        image=torch.zeros(600, 12, 8, 8), valid=torch.ones(600, 8, 8, dtype=torch.bool),
        target=None, positions=at, indices=at, seed=0,
        keys=torch.from_numpy(draw.keys(4, at.numpy(), "task")),
    )  # fmt: skip
    kept = task.kept(model, batch)
    for group in range(4):
        of_group = kept[:, groups == group]
        assert (of_group == of_group[:, :1]).all()
        assert of_group[:, 0].sum().item() == pytest.approx(300, abs=5 * 150**0.5)
    assert (~kept[:, [0, 1, 4, 10]]).sum(1).unique().tolist() == [2]  # one band of each: half
    order = torch.randperm(600)
    moved = dataclasses.replace(batch, keys=batch.keys[order])
    assert torch.equal(task.kept(model, moved), kept[order])
    radar = Known(bands=load_sensor("sentinel1_grd").bands)
    other = dataclasses.replace(batch, image=batch.image[:, :2], known=radar)
    assert task.kept(model, other).sum(1).unique().tolist() == [1]


def test_nothing_observed_gives_a_sum_of_0_with_a_graph():
    batch = CASE.batch(range(2))
    nothing = dataclasses.replace(batch, valid=torch.zeros_like(batch.valid))
    loss, weight = TASK.loss(CASE.model(0.0), nothing)
    loss.backward()
    assert loss == 0 and weight == 0


def test_moments_are_those_of_the_observed_values():
    patches = torch.randn(1, 2, 4, 3, dtype=torch.float64)
    observed = torch.tensor([[[True, True, False, True], [True, True, True, True]]])
    mean, deviation = moments(patches, observed)
    for i in range(2):
        values = patches[0, i][observed[0, i]]
        assert mean[0, i].item() == pytest.approx(values.mean().item())
        assert deviation[0, i].item() == pytest.approx((values.var() + 1e-6).sqrt().item())


def test_the_loss_of_knowing_nothing_is_the_spread_of_the_targets():
    """Patches in units of their own deviation, told as their mean: an error of 1, r2 of 0."""

    class Knows(torch.nn.Module):
        patch = 4

        def numbers(self, height, width):
            return 64, 16, 48

        def bands_hidden(self, count, bands):
            return tuple(range(count)), 0

        def forward(self, image, shown, asked):
            return torch.zeros(*asked.shape, 3 * 16)

    image = torch.randn(64, 3, 32, 32)
    at = torch.arange(64)
    batch = Batch(
        image=image,
        valid=torch.ones(64, 32, 32, dtype=torch.bool),
        target=None,
        positions=at,
        indices=at,
        seed=0,
        keys=at,
    )
    figures = TASK.score(Knows(), batch).finish()
    assert figures["loss"] == pytest.approx(1 - 1 / 48, rel=1e-4)  # variances are of n - 1
    assert figures["r2"] == pytest.approx(0, abs=1e-3)


def made(model, outputs=None):
    return model.build(laws.INPUTS, outputs or TASK.outputs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: made(UNet()), "unet gives outputs of whole images.*choose model.kind mae$"),
        (lambda: made(ViT(patch=2)), "vit gives outputs of whole images.*model.kind mae$"),
        (
            lambda: made(MAE(patch=2), Outputs(channels=3, dense=True)),
            "mae gives patches that it was not shown, and the task wants an output for every pixel",
        ),
        (lambda: made(MAE(patch=6)), "one patch of samples of 6 px.*make it 1 or less"),
        (lambda: made(MAE(patch=8)), "one patch of samples of 6 px"),
        (lambda: MAE(band_ratio=0.5), "band_ratio=0.5 has no effect with mask=spatial"),
        (lambda: MAE(band_groups=True), "band_groups=true has no effect with mask=spatial"),
        (
            lambda: made(MAE(patch=2, mask="both", band_groups=True)),
            "band_groups=true has no effect on .*: they are all of one pixel size and region",
        ),
        (lambda: MAE(band_ratio=1.0, mask="both"), "band_ratio=1.0 must be above 0 and below 1"),
        (
            lambda: MAE(patch=2, mask="both").build(
                Inputs(bands=laws.INPUTS.bands[:1], size=6), TASK.outputs
            ),
            "mask=both hides some bands and shows others, and the samples have one",
        ),
        (lambda: MAE(mask_ratio=1.0), "mask_ratio=1.0 must be above 0 and below 1"),
        (lambda: MAE(predicted=0.5), "predicted=0.5 has no effect with decoder=full"),
        (lambda: MAE(predicted=1.5, decoder="cross"), "predicted=1.5 must be above 0"),
        (lambda: MAE(decoder_width=100, decoder_heads=3), "decoder_width=100 must be a multiple"),
        (lambda: MAE(decoder_width=30, decoder_heads=3), "a decoder_width that 4 divides, not 30"),
        (lambda: MAE(width=30, heads=3), "positions=waves needs a width that 4 divides, not 30"),
        (lambda: Pretrain().bind(CASE.label, None), "bind.. needs inputs"),
        (
            lambda: check_mappable(Label(kind="mask", classes=("a", "b")), TASK.outputs),
            "trained to fill in hidden patches.*nothing to map.*swath evaluate",
        ),
    ],
)
def test_what_does_not_fit_is_told(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_any_store_will_do():
    """Labels of every kind, and none."""
    for kind in ("class", "flags", "mask", "value", "raster", "none"):
        bound = Pretrain().bind(Label(kind=kind), None, laws.INPUTS)
        assert bound.outputs == Outputs(channels=laws.BANDS, dense=True, masked=True)
