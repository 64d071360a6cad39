"""MoCo v3: its loss by torch's cross entropy, whole batches against one pass, what is exported."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from swath.config import ConfigError
from swath.data.chip import Label
from swath.data.views import Global, Views
from swath.models.vit import ViT
from swath.nn.moco import Momentum
from swath.nn.settle import Update, settle
from swath.optimizers.adamw import AdamW
from swath.parallel.replica import Replica
from swath.parallel.world import World
from swath.tasks._pairs import told_apart
from swath.tasks.moco import Moco, MocoObjective
from swath.train.settings import TrainSettings
from swath.train.state import TrainState
from swath.train.step import train_step
from tests import laws

SMALL = Moco(hidden=(12,), width=6, predictor=(10,), memory=60)
CASE = laws.Observed(SMALL, Label(kind="none"))


def taught(task: Moco = SMALL, **model: object) -> tuple[MocoObjective, Momentum]:
    """Return the task and a small network, away from its teacher, in float64."""
    objective = task.bind(Label(kind="none"), None, laws.INPUTS)
    torch.manual_seed(3)
    vit = ViT(patch=2, width=8, depth=1, heads=2, **model)  # type: ignore[arg-type]
    network = task.fitted(vit.build(laws.INPUTS, objective.outputs), 400).double()
    assert isinstance(network, Momentum) and isinstance(objective, MocoObjective)
    with torch.no_grad():
        for parameter in network.network.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    return objective, network


def papers_loss(
    vectors: tuple[torch.Tensor, ...], alike: torch.Tensor, t: float = 0.2
) -> torch.Tensor:
    """Algorithm 1 of the paper over the whole matrix; samples that show the same left out."""
    q1, q2, k1, k2 = (normalize(each, dim=1) for each in vectors)
    n = len(alike)
    left_out = (alike[:, None] == alike) & ~torch.eye(n, dtype=torch.bool)

    def ctr(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        logits = (q @ k.detach().T / t).masked_fill(left_out, -torch.inf)
        return 2 * t * cross_entropy(logits, torch.arange(n))

    return ctr(q1, k2) + ctr(q2, k1)


def by_hand(network: Momentum, batch) -> torch.Tensor:
    """Return the paper's loss of a batch, a view and a network at a time."""
    queries = [network.predictor(network.network(view)) for view in batch.views]
    keys = [network.teacher.network(view) for view in batch.views]
    return papers_loss((*queries, *keys), batch.alike)


def gradients(network: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("places", [None, [0, 1, 2, 0, 4, 1, 0]], ids=["apart", "alike"])
@pytest.mark.parametrize("negatives", ["batch", "microbatch"])
def test_the_loss_is_the_papers(places, negatives):
    """Loss and gradient, of the network and the predictor; nothing flows into the teacher."""
    objective, network = taught(dataclasses.replace(SMALL, negatives=negatives))
    batch = CASE.batch(range(7))
    if places is not None:
        batch = dataclasses.replace(batch, places=torch.tensor(places))
    expected = by_hand(network, batch)
    expected.backward()
    wanted = gradients(network)
    network.zero_grad()
    loss, weight = objective.loss(network, batch)
    (loss / weight).backward()
    assert (loss / weight).item() == pytest.approx(expected.item(), rel=1e-12)
    found = gradients(network)
    assert found.keys() == wanted.keys() and not any("teacher" in name for name in found)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-13, msg=name)


def test_a_large_batch_is_compared_some_anchors_at_a_time(monkeypatch):
    vectors = normalize(torch.randn(7, 4, 5, dtype=torch.float64), dim=2)
    alike = torch.tensor([0, 1, 2, 0, 4, 1, 0])
    expected = papers_loss(vectors.unbind(1), alike)
    monkeypatch.setattr("swath.tasks._pairs._ANCHORS", 3)
    loss = told_apart(vectors, alike, 0.2, MocoObjective.sides)
    torch.testing.assert_close(2 * 0.2 * loss / 7, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("micro", [2, 4, 12])
def test_gradients_of_microbatches_are_those_of_one_pass(micro):
    objective, network = taught()
    expected = by_hand(network, CASE.batch(range(24, 36)))
    expected.backward()
    wanted = gradients(network)
    batches = [CASE.batch(range(p, p + micro)) for p in range(24, 36, micro)]
    loss, weight = Replica(network, World.alone()).gradients(batches, objective.loss, 12)
    assert (loss / weight).item() == pytest.approx(expected.item(), rel=1e-12)
    for name, value in gradients(network).items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-10, atol=1e-12, msg=name)


def test_the_teacher_sees_each_view_once_an_update():
    """Its keys carry no gradient, so the second pass, which hands gradients on, needs none."""
    objective, network = taught()
    seen: list[int] = []
    network.teacher.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    batches = [CASE.batch(range(p, p + 4)) for p in range(0, 12, 4)]
    Replica(network, World.alone()).gradients(batches, objective.loss, 12)
    assert seen == [8, 8, 8]


def test_a_skipped_update_leaves_no_trace():
    """Of a sample that is not finite; the next update moves network, predictor and teacher."""
    objective, network = taught()
    state = TrainState(network, AdamW(lr=1e-2).build(network))
    replica, settings = Replica(network, World.alone()), TrainSettings(skip_nonfinite=1)
    before = copy.deepcopy(network.state_dict())

    def update(batches):
        return train_step(state, batches, objective.loss, replica, settings, 4, 1.0)

    good = [CASE.batch(range(p, p + 2)) for p in (0, 2)]
    bad = dataclasses.replace(good[1], views=tuple(v * torch.nan for v in good[1].views))
    assert update([good[0], bad])["skipped"] == 1
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert update(good)["skipped"] == 0
    after = network.state_dict()
    for name in ("network.norm.weight", "predictor.0.weight", "teacher.network.norm.weight"):
        assert not torch.equal(after[name], before[name]), name
    assert after["teacher.seen"] == 8


def test_scores_are_those_of_queries_among_keys():
    objective, network = taught()
    network.eval()
    batch = CASE.batch(range(30))
    with torch.no_grad():
        figures = objective.score(network, batch).finish()
        q1, q2, k1, k2 = objective.embed(network, batch).unbind(1)
        expected = by_hand(network, batch).item()
    assert figures["loss"] == pytest.approx(expected, rel=1e-12)
    distances = torch.stack([torch.cdist(q1, k2), torch.cdist(q2, k1)])
    right = (distances.argmin(2) == torch.arange(30)).double().mean().item()
    assert figures["top1"] == pytest.approx(right) and 0 < right < 1
    near = distances.diagonal(dim1=1, dim2=2).square().mean().item()
    assert figures["alignment"] == pytest.approx(near)
    apart = (-2 * distances[:, ~torch.eye(30, dtype=torch.bool)] ** 2).exp().mean().log().item()
    assert figures["uniformity"] == pytest.approx(apart)


def test_what_is_exported_is_the_network_without_predictor_and_teacher():
    objective, network = taught()
    plain = ViT(patch=2, width=8, depth=1, heads=2).build(laws.INPUTS, objective.outputs).double()
    plain.load_state_dict(SMALL.merged(network.state_dict()))
    image = torch.randn(2, laws.BANDS, 6, 6, dtype=torch.float64)
    assert torch.equal(objective.predict(plain, image), network.network(image))
    assert not torch.equal(network.network(image), network.teacher.network(image))
    with pytest.raises(ConfigError, match=r"the network alone: .* in its metrics.jsonl; swath pro"):
        objective.score(plain, CASE.batch(range(2)))


@pytest.mark.parametrize("embed", ["bands", "wavelengths"])
def test_frozen_patches_stay_as_they_were_drawn(embed):
    """Student and teacher have the same ones, before and after an update; the rest learns."""
    bands = tuple(
        dataclasses.replace(band, wavelength_nm=500.0 + 100 * n)
        for n, band in enumerate(laws.INPUTS.bands)
    )
    inputs = dataclasses.replace(laws.INPUTS, bands=bands)
    task = dataclasses.replace(SMALL, freeze_patches=True)
    objective = task.bind(Label(kind="none"), None, inputs)
    vit = ViT(patch=2, width=8, depth=1, heads=2, embed=embed)  # type: ignore[arg-type]
    network = task.fitted(vit.build(inputs, objective.outputs), 400).double()
    before = copy.deepcopy(network.state_dict())
    optimizer = AdamW(lr=1e-2).build(network)
    Replica(network, World.alone()).gradients([CASE.batch(range(4))], objective.loss, 4)
    optimizer.step()
    settle(network, lambda tensor: tensor, Update(4, 4))
    for name, value in network.state_dict().items():
        if "patch_embed" in name:
            assert torch.equal(value, before[name]), name
    for name in ("network.norm.weight", "teacher.network.norm.weight"):
        assert not torch.equal(network.state_dict()[name], before[name]), name


def test_a_network_without_patches_cannot_freeze_them():
    with pytest.raises(ConfigError, match=r"freeze_patches=true: a Sequential has no projection"):
        dataclasses.replace(SMALL, freeze_patches=True).fitted(CASE.network(0.0), 400)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"predictor": (0,)}, r"predictor=\[0\] must be positive"),
        ({"memory": 0}, r"memory=0 samples must be at least 1"),
        ({"temperature": 0.0}, r"temperature=0 must be above 0"),
        ({"views": Views(global_=Global(number=3))}, r"number=0: moco compares two views"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Moco(**wrong)
