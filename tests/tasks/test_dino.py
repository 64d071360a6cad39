"""Self-distillation: its loss by another way, its teacher and centre on any ranks, and collapse."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from swath.config import ConfigError
from swath.data.augment import Augment
from swath.data.chip import Batch, Label
from swath.data.sensor import load_sensor
from swath.data.views import Global, Local, Viewer, Views
from swath.models import Inputs
from swath.models.unet import UNet
from swath.models.vit import ViT
from swath.nn.dino import SelfDistilled
from swath.nn.settle import Update, settle
from swath.tasks.dino import Dino, DinoObjective

INPUTS = Inputs(bands=load_sensor("rgb").bands, size=8)
NONE = Label(kind="none")
SMALL = Dino(
    hidden=(12,),
    width=6,
    prototypes=10,
    memory=100,
    centre_memory=30,
    warmup=80,
    freeze=20,
    views=Views(local=Local(number=1)),
)


def alone(tensor: Tensor) -> Tensor:
    return tensor


def taught(task: Dino = SMALL, samples: int = 400) -> tuple[DinoObjective, SelfDistilled]:
    """Return the task and a small network with its teacher, in float64."""
    objective = task.bind(NONE, None, INPUTS)
    torch.manual_seed(3)
    vit = ViT(patch=2, width=8, depth=1, heads=2).build(INPUTS, objective.outputs)
    network = task.fitted(vit, samples).double()
    assert isinstance(network, SelfDistilled)
    return objective, network


def batch(task: Dino = SMALL, samples: int = 5, seed: int = 0) -> Batch:
    """Return views of invented samples; of the last one little was observed."""
    torch.manual_seed(seed)
    image = torch.randn(samples, 3, 8, 8, dtype=torch.float64)
    observed = torch.ones_like(image, dtype=torch.bool)
    observed[-1, :, 1:] = False
    at = np.arange(samples)
    views, seen = Viewer(task.views, Augment())(image * observed, observed, at, seed)
    return Batch(
        image=image,
        valid=observed[:, 0],
        target=None,
        positions=torch.from_numpy(at),
        indices=torch.from_numpy(at),
        seed=seed,
        views=views,
        seen=tuple(each.all(1) for each in seen),
    )


def papers_loss(student: list[Tensor], teacher: list[Tensor], centre: Tensor, t: float) -> float:
    """Return the mean loss as in algorithm 1 of the paper, a sample and a pair at a time."""
    found = []
    for first, wanted in enumerate(teacher):
        for other, told in enumerate(student):
            if other != first:
                target = np.exp((wanted - centre).numpy() / t)
                target /= target.sum(1, keepdims=True)
                share = np.exp(told.detach().numpy() / 0.1)
                share /= share.sum(1, keepdims=True)
                found.append(-(target * np.log(share)).sum(1))
    return float(np.mean(found))


@pytest.mark.parametrize("seen", [0, 40, 200])
def test_the_loss_is_the_papers(seen):
    """In mid-warm-up too; a sample that was not observed is left out of all pairs."""
    objective, network = taught()
    network.teacher.seen.fill_(seen)
    torch.nn.init.normal_(network.centre.value)
    there, few = batch(), 4
    loss, weight = objective.loss(network, there)
    assert weight == 4 * few and weight.dtype == torch.float64  # 2 x 2 other views, 4 samples

    def answer(branch: nn.Module, view: Tensor) -> Tensor:
        vectors = branch.network(view[:few])
        unit = vectors / (vectors**2).sum(1, keepdim=True) ** 0.5
        weight = branch.prototypes.weight
        return (unit @ (weight / (weight**2).sum(1, keepdim=True) ** 0.5).T).detach()

    told = [answer(network.student, view) for view in there.views]
    wanted = [answer(network.teacher.network, view) for view in there.views[:2]]
    t = 0.04 + 0.03 * min(seen / 80, 1)
    expected = papers_loss(told, wanted, network.centre.value, t)
    assert (loss / weight).item() == pytest.approx(expected, rel=1e-12)
    assert loss.requires_grad


def test_prototypes_are_still_at_first_and_then_learn():
    objective, network = taught()
    for seen, learns in ((19, False), (20, True)):
        network.teacher.seen.fill_(seen)
        network.zero_grad()
        objective.loss(network, batch())[0].backward()
        gradient = network.student.prototypes.weight.grad
        assert bool(gradient.any()) == learns
        assert network.student.network.head[0].weight.grad.any()


def test_the_centre_is_the_mean_of_what_the_teacher_said():
    """Of the large views that were observed, over all microbatches; nothing in evaluation."""
    objective, network = taught()
    said = []
    for seed in range(3):
        there = batch(seed=seed)
        objective.loss(network, there)
        with torch.no_grad():
            said += [network.teacher.network([view[:4]])[1][0] for view in there.views[:2]]
    with torch.no_grad():
        network.eval()
        objective.score(network, batch(seed=9))
    settle(network, alone, Update(15, 15))
    expected = torch.cat(said).mean(0) * (1 - math.exp(-15 / 30))
    torch.testing.assert_close(network.centre.value, expected, rtol=1e-12, atol=1e-12)


def test_a_teacher_that_says_the_same_of_all_is_told():
    """One direction for all, and all alike for all; and a sound one is not doubted."""
    objective, network = taught()
    network.eval()
    there = batch(samples=40)
    with torch.no_grad():
        for parameter in network.teacher.network.prototypes.parameters():
            parameter.mul_(0).add_(1)  # all prototypes are one
        same = objective.score(network, there)
        torch.nn.init.orthogonal_(network.teacher.network.prototypes.weight)
        network.centre.value[3] = -10  # one prototype wins for all
        one = objective.score(network, there)
    for tally in (same, one):
        assert tally.finish()["groups"] == pytest.approx(1, abs=1e-6)
        (text,) = tally.doubts()
        assert "nearly the same of all samples (groups 1.000" in text and "collapsed" in text
    assert one.finish()["prototypes"] == pytest.approx(1, abs=1e-3)
    assert same.finish()["prototypes"] == pytest.approx(10)


def test_figures_of_a_teacher_that_tells_kinds_apart():
    """Four kinds said with certainty, their vectors at right angles."""
    shares, vectors = np.zeros(10), np.zeros(6)
    shares[:4], vectors[:4] = 5, 5
    sums = {"count": 20.0, "shares": shares, "entropy": 0.0, "vectors": vectors}
    tally = objective_of(SMALL).empty()
    tally = dataclasses.replace(tally, sums={**tally.sums, **sums})
    figures = tally.finish()
    assert figures["groups"] == pytest.approx(4) == figures["prototypes"]
    assert figures["spread"] == pytest.approx(math.sqrt(1 - 1 / 4))
    assert not tally.doubts()


def objective_of(task: Dino) -> DinoObjective:
    return task.bind(NONE, None, INPUTS)


def test_what_is_exported_is_the_teacher_by_the_networks_names():
    objective, network = taught()
    plain = ViT(patch=2, width=8, depth=1, heads=2).build(INPUTS, objective.outputs).double()
    nn.init.ones_(network.teacher.network.network.norm.bias)
    plain.load_state_dict(SMALL.merged(network.state_dict()))
    assert (plain.norm.bias == 1).all()
    image = torch.randn(2, 3, 8, 8).double()
    assert torch.equal(objective.predict(plain, image), network.teacher.network.network(image))


def test_a_trained_model_cannot_be_scored_and_says_what_can():
    objective, network = taught()
    with pytest.raises(ConfigError, match=r"the teacher alone: .* in its metrics.jsonl; swath pro"):
        objective.score(network.student.network, batch())


def test_a_network_for_pixels_is_refused():
    with pytest.raises(ConfigError, match=r"the task wants one output for each image; choose"):
        UNet(width=4, depth=1).build(INPUTS, objective_of(SMALL).outputs)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"views": Views(global_=Global(number=1))}, r"1 global and 0 local: a view is compared"),
        ({"teacher_temperature": (0.04, 0.2)}, r"\[0.04, 0.2\] must rise .* at most temperature=0"),
        ({"memory": 0}, r"memory=0 samples must be at least 1"),
        ({"freeze": -1}, r"freeze=-1 samples must not be negative"),
        ({"prototypes": 1}, r"prototypes=1 at least 2"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Dino(**wrong)
