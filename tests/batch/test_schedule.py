"""The learning rate's factor is a pure function of the samples seen."""

import math

import pytest
import torch

from swath.batch.schedule import Schedule
from swath.config import ConfigError


def test_cosine_is_that_of_torch():
    """Counted in updates of 10 samples, torch's CosineAnnealingLR must give the same rates."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0.1)
    schedule = Schedule(kind="cosine", end=0.1)
    for update in range(50):
        (rate,) = theirs.get_last_lr()
        assert schedule.factor(10 * update, 500) == pytest.approx(rate, abs=1e-12)
        optimizer.step()
        theirs.step()


def test_warmup_rises_along_a_line_to_the_peak():
    schedule = Schedule(warmup=200, end=0.5)
    assert [schedule.factor(seen, 1000) for seen in (0, 50, 100, 200)] == [0, 0.25, 0.5, 1]
    assert schedule.factor(600, 1000) == pytest.approx(0.75)  # half of the way down
    assert schedule.factor(1000, 1000) == schedule.factor(5000, 1000) == 0.5


@pytest.mark.parametrize(
    "schedule, expected",
    [
        (Schedule(kind="linear"), 1 - 250 / 1000),
        (Schedule(kind="constant"), 1.0),
        (Schedule(kind="step", steps=(100, 250, 700), drop=0.5), 0.25),
        (Schedule(kind="inverse", rate=0.01), 1 / 3.5),
        (Schedule(kind="cosine"), (1 + math.cos(math.pi / 4)) / 2),
    ],
)
def test_closed_forms_at_a_quarter_of_the_run(schedule, expected):
    assert schedule.factor(250, 1000) == pytest.approx(expected, rel=1e-12)


def test_batch_size_does_not_enter():
    """Two runs that saw the same samples in unlike updates have the same rate."""
    schedule = Schedule(warmup=300)
    small = {seen: schedule.factor(seen, 1200) for seen in range(0, 1200, 30)}
    large = {seen: schedule.factor(seen, 1200) for seen in range(0, 1200, 120)}
    assert all(small[seen] == rate for seen, rate in large.items())
    assert len(set(large.values())) > 5


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"kind": "constant", "end": 0.1}, "end has no effect with kind=constant"),
        ({"kind": "cosine", "steps": (5,)}, "steps has no effect.*belongs to kind=step"),
        ({"kind": "linear", "drop": 0.5}, "drop has no effect"),
        ({"kind": "cosine", "rate": 0.1}, "rate has no effect"),
        ({"kind": "step"}, "kind=step needs steps"),
        ({"kind": "inverse"}, "needs a positive rate"),
        ({"kind": "step", "steps": (7, 5)}, r"steps=\[7, 5\] must ascend"),
        ({"kind": "step", "steps": (7,), "warmup": 8}, "lie after warmup=8"),
        ({"warmup": -1}, "must not be negative"),
        ({"end": 1.5}, "must be in 0..1"),
    ],
)
def test_settings_that_contradict_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Schedule(**settings)


def test_a_schedule_longer_than_the_run_is_refused():
    with pytest.raises(ConfigError, match="warmup=500 is longer than the run of 400 samples"):
        Schedule(warmup=500).factor(0, 400)
    with pytest.raises(ConfigError, match="the drop at 500 has no effect in a run of 500"):
        Schedule(kind="step", steps=(500,)).check(500)
