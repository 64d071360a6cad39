"""NT-Xent against its formula, whole batches against one pass, scores against their definitions."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from swath.config import ConfigError
from swath.data.chip import Batch, Label
from swath.data.views import Global, Local, Views
from swath.nn.norm import BatchNorm2d
from swath.nn.random import Dropout
from swath.parallel.replica import Replica
from swath.parallel.world import World
from swath.predict.layers import check_mappable
from swath.tasks import _pairs
from swath.tasks._pairs import Pairs, Whole, told_apart
from swath.tasks.contrast import Contrast, ContrastObjective
from swath.tasks.moco import Moco
from tests import laws

SIDES = ContrastObjective.sides
CASE = laws.Observed(Contrast(), Label(kind="none"))


def nt_xent(views: torch.Tensor, alike: torch.Tensor, temperature: float) -> torch.Tensor:
    return told_apart(views, alike, temperature, SIDES)


def embedded(model: nn.Module, batch: Batch) -> torch.Tensor:
    return CASE.objective().embed(model, batch)


def vectors(samples: int, width: int = 5, seed: int = 0) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    found = torch.randn(samples, 2, width, dtype=torch.float64, generator=draws)
    return normalize(found, dim=2).requires_grad_()


def by_formula(views: torch.Tensor, alike: list[int], temperature: float) -> torch.Tensor:
    """Equation 1 of the paper, term by term, summed over both views of all samples."""
    total = views.new_zeros(())
    for i, k in np.ndindex(*views.shape[:2]):
        anchor, partner = views[i, k], views[i, 1 - k]
        positive = torch.exp(anchor @ partner / temperature)
        others = [
            torch.exp(anchor @ views[j, m] / temperature)
            for j, m in np.ndindex(*views.shape[:2])
            if alike[j] != alike[i]
        ]
        total = total - torch.log(positive / (positive + sum(others)))
    return total


@pytest.mark.parametrize("alike", [list(range(7)), [0, 1, 2, 0, 4, 1, 0]], ids=["apart", "alike"])
def test_nt_xent_is_its_formula(alike, monkeypatch):
    """Loss and gradient to 1e-12, of all anchors at once and of four at a time; samples that show
    the same are left out of each other's choice."""
    views = vectors(7)
    expected = by_formula(views, alike, 0.3)
    (pull,) = torch.autograd.grad(expected, views)
    for anchors in (1024, 4):
        monkeypatch.setattr(_pairs, "_ANCHORS", anchors)
        found = nt_xent(views, torch.tensor(alike), 0.3)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        (gradient,) = torch.autograd.grad(found, views)
        torch.testing.assert_close(gradient, pull, rtol=1e-12, atol=1e-12)


def test_nt_xent_is_torchs_cross_entropy_over_the_whole_matrix():
    views = vectors(50, 16)
    every = views.transpose(0, 1).flatten(0, 1)
    logits = (every @ every.T / 0.1).fill_diagonal_(-torch.inf)
    expected = cross_entropy(logits, torch.arange(100).roll(50), reduction="sum")
    torch.testing.assert_close(nt_xent(views, torch.arange(50), 0.1), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("task", [Contrast(width=6), Moco(width=6, predictor=(8,), hidden=(8,))])
def test_samples_that_were_not_observed_count_nowhere(task):
    """Neither as anchors, nor as partners, nor among the others, in training and in scores: as if
    they were not there; of nothing else the loss is 0, and so is its weight."""
    case = laws.Case(task, Label(kind="none"))
    objective, model = case.objective(), case.model(0.0)
    batch = case.batch(range(24, 36))
    half = torch.stack([seen.double().mean((1, 2)) >= 0.5 for seen in batch.seen]).all(0)
    assert 2 < half.sum() < 10
    vectors, kept = objective.embed(model, batch), torch.arange(12)[half]
    whole = Whole(objective)
    loss, weight = whole.joined(vectors, batch.alike)
    wanted, counted = whole.joined(vectors[half], batch.indices[half])
    torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=0)
    assert weight == counted == 2 * len(kept)
    (pull,) = torch.autograd.grad(loss, vectors, retain_graph=True)
    assert not pull[~half].any() and pull[half].any()
    few = objective._tally(
        {n: v[half.numpy()] for n, v in objective.score(model, batch).sums.items()}
    )
    assert objective.score(model, batch).finish() == few.finish()
    nothing, none = whole.joined(vectors, torch.full((12,), -1))
    nothing.backward()
    assert nothing == none == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


class Net(nn.Module):
    """Pooled convolutions with a projector; dropout and batch norm where they are asked for."""

    def __init__(self, dropout: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(laws.BANDS, 8, 3)
        self.norm = BatchNorm2d(8) if norm else nn.Identity()
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(8, 6)

    def forward(self, image):
        return self.head(self.dropout(torch.tanh(self.norm(self.conv(image))).mean((2, 3))))


def learned(micro: int, **options) -> tuple[list[torch.Tensor], float, Net]:
    """Return gradients and loss of an update of 12 in microbatches of ``micro``."""
    torch.manual_seed(3)
    model = Net(**options).double()
    task = dataclasses.replace(CASE, task=Contrast(width=6)).objective()
    batches = [CASE.batch(range(p, p + micro)) for p in range(24, 36, micro)]
    loss, weight = Replica(model, World.alone()).gradients(batches, task.loss, 12)
    assert weight.item() == pytest.approx(24)
    return [p.grad.clone() for p in model.parameters()], (loss / weight).item(), model


def test_gradients_of_the_whole_batch_are_those_of_one_pass():
    """In microbatches of 1 to 12: the loss by its formula, the gradient by autograd through it."""
    torch.manual_seed(3)
    model = Net().double()
    views = embedded(model, CASE.batch(range(24, 36)))
    mean = by_formula(views, list(range(12)), 0.2) / 24
    expected = torch.autograd.grad(mean, list(model.parameters()))
    for micro in (1, 2, 4, 12):
        gradients, loss, _ = learned(micro)
        assert loss == pytest.approx(mean.item(), rel=1e-12)
        for found, wanted in zip(gradients, expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_both_passes_draw_alike():
    """With dropout the gradient handed on is that of the loss that was told: by differences."""

    def told(shift: float) -> float:
        torch.manual_seed(3)
        model = Net(dropout=0.5).double()
        with torch.no_grad():
            model.head.bias[2] += shift
        task = dataclasses.replace(CASE, task=Contrast(width=6)).objective()
        batches = [CASE.batch(range(p, p + 4)) for p in range(24, 36, 4)]
        loss, weight = Replica(model, World.alone()).gradients(batches, task.loss, 12)
        return (loss / weight).item()

    gradients, _, _ = learned(4, dropout=0.5)
    slope = (told(1e-5) - told(-1e-5)) / 2e-5
    assert gradients[-1][2].item() == pytest.approx(slope, rel=1e-6)


def test_batch_statistics_are_gathered_once():
    """Each microbatch is seen twice, and counts once."""
    *_, model = learned(4, norm=True)
    assert model.norm.passes.item() == 3


def test_negatives_of_the_microbatch_are_another_loss():
    """The sum over microbatches of their own losses; it depends on how large these are."""
    task = dataclasses.replace(CASE, task=Contrast(width=6, negatives="microbatch")).objective()
    torch.manual_seed(3)
    model = Net().double()
    found = []
    for micro in (4, 12):
        batches = [CASE.batch(range(p, p + micro)) for p in range(0, 12, micro)]
        loss, _ = Replica(model, World.alone()).gradients(batches, task.loss)
        by_hand = sum(
            by_formula(embedded(model, batch), list(range(micro)), 0.2) for batch in batches
        )
        assert loss.item() == pytest.approx(by_hand.item(), rel=1e-12)
        found.append(loss.item())
    assert found[0] < found[1] - 1


def tally(views: torch.Tensor, alike: list[int] | None = None) -> Pairs:
    count = len(views)
    numbers = np.arange(count) if alike is None else np.array(alike)
    sums = {"index": np.arange(count), "alike": numbers, "vectors": views.detach().numpy()}
    return Pairs(sums, 0.2, SIDES)


def test_scores_are_what_they_are_called():
    views = vectors(40, 3)
    figures = tally(views).finish()
    every = views.detach().transpose(0, 1).flatten(0, 1)
    assert figures["loss"] == pytest.approx(by_formula(views, list(range(40)), 0.2).item() / 80)
    distances = torch.cdist(every, every).fill_diagonal_(torch.inf)
    nearest = distances.argmin(1) == torch.arange(80).roll(40)
    assert figures["top1"] == pytest.approx(nearest.double().mean().item())
    assert 0 < figures["top1"] < 1
    apart = (views[:, 0] - views[:, 1]).square().sum(1).mean().item()
    assert figures["alignment"] == pytest.approx(apart)
    mask = torch.arange(40).repeat(2)[:, None] != torch.arange(40).repeat(2)
    pairs = torch.exp(-2 * distances[mask] ** 2)
    assert figures["uniformity"] == pytest.approx(pairs.mean().log().item())


def test_scores_of_perfect_and_of_collapsed_networks():
    alone = torch.eye(8, dtype=torch.float64)[:, None].expand(8, 2, 8)
    figures = tally(alone).finish()
    assert figures["top1"] == 1 and figures["alignment"] == pytest.approx(0)
    assert figures["uniformity"] == pytest.approx(-4)  # all pairs at a squared distance of 2
    same = torch.ones(8, 2, 1, dtype=torch.float64)
    figures = tally(same).finish()
    assert figures["top1"] == 0 and figures["uniformity"] == pytest.approx(0)
    assert figures["loss"] == pytest.approx(np.log(15))


def test_samples_are_compared_in_groups_that_their_indices_decide(monkeypatch):
    monkeypatch.setattr(_pairs, "GROUP", 16)
    whole = tally(vectors(40, 3))
    halves = [
        Pairs({n: v[s] for n, v in whole.sums.items()}, 0.2, SIDES)
        for s in (np.s_[25:], np.s_[:25])
    ]
    assert (halves[0] + halves[1]).finish() == whole.finish() == (halves[1] + halves[0]).finish()
    assert whole.finish()["loss"] < by_formula(vectors(40, 3), list(range(40)), 0.2).item() / 80


def test_nothing_to_score_gives_no_figures():
    found = CASE.objective().empty().finish()
    assert set(found) == {"loss", "top1", "alignment", "uniformity"}
    assert all(np.isnan(value) for value in found.values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Contrast(temperature=0), "temperature=0 must be above 0"),
        (lambda: Contrast(width=0), r"width=0 and hidden=\[512\] must be positive"),
        (
            lambda: Contrast(views=Views(global_=Global(number=3))),
            "views.global.number=3, views.local.number=0: contrast compares two views",
        ),
        (
            lambda: check_mappable(Label(kind="class"), Contrast().bind(None, None).outputs),
            "trained to compare views of samples.*nothing to map.*swath probe",
        ),
        (lambda: Contrast(views=Views(local=Local(number=2))), "views.local.number=2: contrast"),
        (lambda: Contrast().check(1, 1), "batch.samples=1: contrast tells a sample from others"),
        (
            lambda: Moco(negatives="microbatch").check(8, 1),
            "batch.micro=1: moco .* task.negatives=microbatch has none here; .*2 at the least",
        ),
    ],
)
def test_what_does_not_fit_is_told(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_two_samples_are_enough():
    Contrast().check(2, 1)
    Contrast(negatives="microbatch").check(2, 2)
