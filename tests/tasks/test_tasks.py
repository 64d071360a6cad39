"""Losses against torch's, scores against the tallies of numpy, and what settings refuse."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from swath.config import ConfigError, find, kinds, load
from swath.data.chip import IGNORE, Batch, Label
from swath.tasks import Task
from swath.tasks._tally import Confusion, Flags
from swath.tasks.classify import Classify
from swath.tasks.multilabel import Multilabel
from swath.tasks.regress import Regress
from swath.tasks.segment import Segment

CLASSES = ("water", "forest", "field", "town")
COUNTS = np.array([100.0, 50.0, 25.0, 5.0])


class Given(nn.Module):
    """A network that answers with its parameter, whatever it sees."""

    def __init__(self, output):
        super().__init__()
        self.output = nn.Parameter(torch.as_tensor(output))

    def forward(self, image):
        return self.output


def batch(target, size=6):
    b = len(target)
    return Batch(
        image=torch.zeros(b, 2, size, size),
        valid=torch.ones(b, size, size, dtype=torch.bool),
        target=torch.as_tensor(target),
        positions=torch.arange(b),
        indices=torch.arange(b),
        seed=0,
    )


def mask(seed=0, ignored=0.3):
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 4, (3, 6, 6)).astype(np.uint8)
    found[rng.random(found.shape) < ignored] = IGNORE
    return found


def logits(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape) * 2


def test_every_task_says_what_it_learns_and_what_is_shown_of_it():
    """The report knows none by its kind."""
    from swath.config import members

    every = members(Task)
    assert all(task.learns for task in every.values())
    views = {kind for kind, task in every.items() if task().shows == "views"}
    assert views == {"contrast", "dino", "moco"} and every["pretrain"]().shows == "filled"
    assert every["segment"]().shows == "answers"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("exponent", [0.0, 0.5])
def test_segment_loss_equals_torch_cross_entropy(smoothing, exponent):
    """Sum and weight give torch's weighted mean; ignored pixels count in neither."""
    task = Segment(class_weights=exponent, smoothing=smoothing)
    objective = task.bind(Label(kind="mask", classes=CLASSES), COUNTS)
    model, target = Given(logits(3, 4, 6, 6)), mask()
    total, weight = objective.loss(model, batch(target))
    weights = torch.from_numpy((COUNTS.sum() / 4 / COUNTS) ** exponent)
    expected = functional.cross_entropy(
        model.output,
        torch.from_numpy(target).long(),
        weight=weights,
        ignore_index=IGNORE,
        label_smoothing=smoothing,
    )
    assert (total / weight).item() == pytest.approx(expected.item(), rel=1e-12)
    assert weight.dtype == torch.float64 and not weight.requires_grad
    gradient = torch.autograd.grad(total / weight, model.output)[0]
    assert torch.allclose(gradient, torch.autograd.grad(expected, model.output)[0], atol=1e-15)


def test_classify_loss_equals_torch_cross_entropy():
    """For samples, with one that is unknown."""
    objective = Classify().bind(Label(kind="class", classes=CLASSES), None)
    model, target = Given(logits(5, 4)), np.array([0, 3, IGNORE, 1, -1])
    total, weight = objective.loss(model, batch(target))
    known = torch.from_numpy(np.isin(target, range(4)))
    expected = functional.cross_entropy(
        model.output[known], torch.from_numpy(target)[known], reduction="sum"
    )
    assert total.item() == pytest.approx(expected.item()) and weight.item() == 3


def test_squared_loss_is_the_brier_score():
    """scikit-learn's brier_score_loss is of two classes: the sum over both is twice its value."""
    from sklearn.metrics import brier_score_loss

    objective = Classify(loss="squared").bind(Label(kind="class", classes=("a", "b")), None)
    model, target = Given(logits(50, 2)), np.arange(50) % 2
    total, weight = objective.loss(model, batch(target))
    p = model.output.detach().softmax(1)[:, 1].numpy()
    assert (total / weight).item() == pytest.approx(brier_score_loss(target, p), rel=1e-12)


def test_multilabel_loss_equals_torch_and_skips_unknown_flags():
    objective = Multilabel().bind(Label(kind="flags", classes=CLASSES), None)
    target = np.random.default_rng(0).integers(0, 2, (5, 4)).astype(np.uint8)
    target[2, 1] = IGNORE
    model = Given(logits(5, 4))
    total, weight = objective.loss(model, batch(target))
    known = torch.from_numpy(target != IGNORE)
    expected = functional.binary_cross_entropy_with_logits(
        model.output[known], torch.from_numpy(target)[known].double(), reduction="sum"
    )
    assert total.item() == pytest.approx(expected.item()) and weight.item() == 19


@pytest.mark.parametrize(
    ("kind", "torchs"),
    [
        ("squared", functional.mse_loss),
        ("absolute", functional.l1_loss),
        ("huber", functional.huber_loss),
    ],
)
def test_regress_loss_equals_torch_in_units_of_scale(kind, torchs):
    """For rasters with unknown pixels, whose gradient must be 0 and not NaN."""
    task = Regress(loss=kind, offset=10.0, scale=4.0)
    objective = task.bind(Label(kind="raster", classes=("height",)), None)
    target = logits(3, 1, 6, 6, seed=2) * 5 + 10
    target[0, 0, :3] = np.nan
    model = Given(logits(3, 1, 6, 6))
    total, weight = objective.loss(model, batch(target))
    known = torch.from_numpy(~np.isnan(target))
    expected = torchs(model.output[known], ((torch.from_numpy(target) - 10) / 4)[known])
    assert (total / weight).item() == pytest.approx(expected.item(), rel=1e-12)
    total.backward()
    assert model.output.grad.isfinite().all() and not model.output.grad[~known].any()


def test_regress_predicts_in_the_quantity_s_unit():
    """A network that answers 1 means one scale above the offset."""
    task = Regress(offset=(10.0, 100.0), scale=(4.0, 50.0))
    objective = task.bind(Label(kind="value", classes=("height", "mass")), None)
    model = Given(np.ones((3, 2)))
    assert objective.predict(model, torch.zeros(3, 2, 6, 6)).tolist() == [[14.0, 150.0]] * 3
    with torch.no_grad():
        target = np.array([[14.0, 150.0], [14.0, 150.0], [14.0, 160.0]])
        tally = objective.score(model, batch(target))
    assert tally.finish()["rmse/mass"] == pytest.approx(10 / 3**0.5)


@pytest.mark.parametrize("nothing", ["mask", "class", "flags", "value", "raster"])
def test_a_microbatch_without_labels_gives_zero_with_a_graph(nothing):
    """Then every rank still has a gradient to exchange."""
    shape, target, task = {
        "mask": ((3, 4, 6, 6), np.full((3, 6, 6), IGNORE, np.uint8), Segment(smoothing=0.1)),
        "class": ((3, 4), np.full(3, -1), Classify()),
        "flags": ((3, 4), np.full((3, 4), IGNORE, np.uint8), Multilabel()),
        "value": ((3, 4), np.full((3, 4), np.nan), Regress(loss="absolute")),
        "raster": ((3, 4, 6, 6), np.full((3, 4, 6, 6), np.nan), Regress()),
    }[nothing]
    objective = task.bind(Label(kind=nothing, classes=CLASSES), None)
    model = Given(logits(*shape))
    total, weight = objective.loss(model, batch(target))
    total.backward()
    assert total.item() == 0 and weight.item() == 0
    assert model.output.grad is not None and not model.output.grad.any()


def test_segment_score_is_the_tally_of_its_labelled_pixels():
    objective = Segment().bind(Label(kind="mask", classes=CLASSES), None)
    model, target = Given(logits(3, 4, 6, 6)), mask()
    with torch.no_grad():
        found = objective.score(model, batch(target))
        total, weight = objective.loss(model, batch(target))
    labelled = target != IGNORE
    said = model.output.detach().numpy().argmax(1)
    expected = Confusion.count(target[labelled], said[labelled], CLASSES)
    assert (found.sums["confusion"] == expected.sums["confusion"]).all()
    assert found.finish()["loss"] == pytest.approx((total / weight).item())
    probabilities = objective.predict(model, torch.zeros(3, 2, 6, 6))
    assert torch.allclose(probabilities.sum(1), torch.ones(3, 6, 6, dtype=torch.float64))


def test_multilabel_score_bins_like_numpy():
    """Also logits that lie on an edge, where torch and numpy must agree."""
    objective = Multilabel().bind(Label(kind="flags", classes=CLASSES), None)
    scores = logits(40, 4).astype(np.float32)
    scores[:10] = np.round(scores[:10] * 64) / 64
    scores[0, 0], scores[1, 1], scores[2, 2] = 0.0, 99.0, -99.0
    target = np.random.default_rng(0).integers(0, 2, (40, 4)).astype(np.uint8)
    with torch.no_grad():
        found = objective.score(Given(scores), batch(target))
    expected = Flags.count(target, scores, CLASSES)
    for name in ("present", "absent", "exact", "samples"):
        assert (found.sums[name] == expected.sums[name]).all(), name


def test_half_precision_logits_are_summed_in_single_precision():
    """65,536 equal losses in bfloat16 would stop growing long before the end."""
    objective = Segment().bind(Label(kind="mask", classes=("a", "b")), None)
    model = Given(torch.zeros(1, 2, 256, 256, dtype=torch.bfloat16))
    total, weight = objective.loss(model, batch(np.zeros((1, 256, 256), np.uint8), size=256))
    assert (total / weight).item() == pytest.approx(np.log(2), rel=1e-5)


def test_class_weights_at_one_weigh_every_class_alike():
    """100 samples of one class and 5 of another then count the same in the loss."""
    objective = Classify(class_weights=1.0).bind(Label(kind="class", classes=CLASSES), COUNTS)
    assert objective.weights == pytest.approx(COUNTS.sum() / 4 / COUNTS)
    assert COUNTS * objective.weights == pytest.approx(np.full(4, 45.0))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Segment(class_weights=2.0), "task.class_weights=2.0 is not within 0..1"),
        (
            lambda: Segment(class_weights=1.0).bind(Label(kind="mask", classes=CLASSES), None),
            "there are none; set it to 0",
        ),
        (
            lambda: Classify(class_weights=1.0).bind(
                Label(kind="class", classes=CLASSES), COUNTS * [1, 1, 0, 1]
            ),
            "no training sample of field",
        ),
        (
            lambda: Classify().bind(Label(kind="mask", classes=CLASSES), None),
            "use task.kind="
            + " or ".join(
                kind for kind in kinds(Task) if "mask" in (find(Task, kind).labels or ())
            ),
        ),
        (
            lambda: Regress().bind(Label(kind="none"), None),
            "kind none: to learn without labels, use task.kind=",
        ),
        (
            lambda: Segment().bind(Label(kind="mask", classes=("only",)), None),
            "at least two classes; the store has 1: only",
        ),
        (
            lambda: Classify(smoothing=1.0).bind(Label(kind="class", classes=CLASSES), None),
            "task.smoothing=1.0 is not within 0..1",
        ),
        (lambda: Regress(delta=2.0), "task.delta=2.0 has no effect with task.loss=squared"),
        (lambda: Regress(loss="huber", delta=-1.0), "task.delta=-1.0 must be above 0"),
        (lambda: Regress(scale=(1.0, 0.0)), "must be above 0"),
        (
            lambda: Regress(offset=(1.0, 2.0)).bind(Label(kind="value", classes=("h",)), None),
            "task.offset has 2 values; the store has 1 quantities: h",
        ),
        (
            lambda: Segment().bind(Label(kind="mask", classes=tuple(map(str, range(256)))), None),
            "masks hold at most 255 classes",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(make, said):
    with pytest.raises(ConfigError) as error:
        make()
    assert said in str(error.value)


def test_tasks_are_read_from_words():
    """`kind` chooses the file; a wrong figure is refused with the list of right ones."""
    from dataclasses import dataclass, field

    from swath.tasks import Task

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        task: Task = field(default_factory=Segment)

    assert load(Settings, (), ["task.kind=regress", "task.loss=huber", "task.delta=2"]).task == (
        Regress(loss="huber", delta=2.0)
    )
    with pytest.raises(ConfigError, match=r"task.best: expected .*'miou'"):
        load(Settings, (), ["task.best=iou"])
    with pytest.raises(ConfigError, match=r"task.best: expected .*'kappa'.* got 'miou'"):
        load(Settings, (), ["task.kind=classify", "task.best=miou"])
