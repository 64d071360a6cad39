"""Every task of the collection obeys the laws; a mean of means does not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from swath.train.state import TrainState
from tests import laws

CASES = laws.cases()
WEIGHTED = [
    replace(case, task=replace(case.task, class_weights=1.0))
    for case in CASES
    if hasattr(case.task, "class_weights")
]


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads would mostly wait for each other over networks this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


every_task = pytest.mark.parametrize("case", CASES, ids=str)


def test_every_kind_of_label_has_a_task():
    """Otherwise a store could be built that nothing learns from."""
    assert {case.label.kind for case in CASES} == {
        *("class", "flags", "mask", "value", "raster", "none")
    }


@every_task
def test_spreading_changes_nothing(case, ranks):
    """The microbatches of an update dealt to 1, 2 and 3 processes give the same parameters."""
    laws.spreading_changes_nothing(case, ranks)


@pytest.mark.parametrize("case", [*CASES, *WEIGHTED], ids=str)
def test_accumulation_changes_nothing(case):
    """Memory decides how a batch is cut up; the result must not. Classes weigh what they weigh in
    the whole training part, whatever the microbatch has of them."""
    laws.accumulation_changes_nothing(case)


@every_task
def test_resuming_changes_nothing(case):
    """A task keeps nothing of its own that a checkpoint would miss."""
    laws.resuming_changes_nothing(case)


def test_a_state_without_the_optimisers_moments_breaks_the_law(monkeypatch):
    """The control: what a checkpoint forgets, the law must notice."""
    monkeypatch.setattr(TrainState, "_moments", lambda state: {})
    with pytest.raises(AssertionError):
        laws.resuming_changes_nothing(CASES[0])


@every_task
def test_order_changes_no_score(case):
    """Ranks score what they happen to have, in whatever order."""
    laws.order_changes_no_score(case)


@every_task
def test_loss_and_score_agree(case):
    laws.loss_and_score_agree(case)


@every_task
def test_prediction_is_of_the_outputs_shape(case):
    laws.prediction_is_of_the_outputs_shape(case)


@every_task
def test_a_mean_of_ranks_breaks_the_law(case, ranks):
    """The control: with unevenly labelled samples the law must notice the wrong rule."""
    with pytest.raises(AssertionError, match="not close"):
        laws.spreading_changes_nothing(case, ranks, laws.mean_of_ranks)
    apart = ranks(3, laws.learned, case, laws.mean_of_ranks, 3)[0] - laws.learned(case, micro=3)
    assert apart.abs().max() > 1e-3


@every_task
def test_a_mean_of_passes_breaks_the_law(case):
    """The same without any ranks: accumulation alone is enough to go wrong."""
    with pytest.raises(AssertionError, match="not close"):
        laws.accumulation_changes_nothing(case, laws.mean_of_passes)
    apart = laws.learned(case, laws.mean_of_passes) - laws.learned(case)
    assert apart.abs().max() > 1e-3


@every_task
def test_a_mean_of_scores_is_not_the_score(case):
    """The control of the law of scores: averaging the shards' figures gives another number."""
    objective, model = case.objective(), case.model(0.0).eval()
    with torch.no_grad():
        whole = objective.score(model, case.batch(range(40))).finish()[objective.best]
        each = [
            objective.score(model, case.batch(shard)).finish()[objective.best]
            for shard in laws.shards(40, 0)
        ]
    assert abs(np.nanmean(each) - whole) > 1e-3
