"""The curve does not depend on stops, on the ranks, or on when they change."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from swath.parallel.replica import Replica
from swath.parallel.world import World
from swath.train.evaluate import evaluate
from swath.train.interrupt import Interrupted
from swath.train.record import METRICS, Recorder, read
from swath.train.step import Diverged
from tests.train.small import Keyed, Squares, network, trainer, weights

CURVE = ("update", "samples", "loss", "lr", "grad_norm", "val/loss")


def curve(lines):
    return [{name: line[name] for name in CURVE if name in line} for line in lines]


def close(mine, theirs):
    assert len(mine) == len(theirs)
    for line, expected in zip(mine, theirs, strict=True):
        assert line == pytest.approx(expected, rel=1e-11)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    data = Keyed()
    made, lines = trainer(tmp_path_factory.mktemp("unbroken"), loader=data)
    made.run()
    return lines, made.state, data.seen


def test_the_loss_falls_and_every_sample_is_seen_once(unbroken):
    lines, state, seen = unbroken
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 12 and losses[-1] < 0.7 * losses[0]
    assert seen[:96] == list(range(96)) and state.progress.samples == 96
    assert [line["samples"] for line in lines if "val/loss" in line] == [24, 48, 72, 96]


def test_the_rate_of_an_update_is_that_of_the_samples_before_it(unbroken):
    """8 samples an update, a peak of 0.01 after 16, then a cosine down to 0 after 96."""
    rates = [line["lr"] for line in unbroken[0] if "lr" in line]
    falling = [0.005 * (1 + math.cos(math.pi * seen / 80)) for seen in range(0, 80, 8)]
    assert rates == pytest.approx([0.0, 0.005, *falling], rel=1e-12)


def test_what_is_evaluated_is_the_average(unbroken):
    """By hand, on the averaged weights of the end; the last ones score otherwise."""
    lines, state, _ = unbroken

    def error(tensors):
        model = network().eval()
        model.load_state_dict(tensors)
        held_out, objective = Keyed(), Squares()
        with torch.no_grad():
            sums = [objective.loss(model, held_out.microbatch(1000 + 2 * i)) for i in range(5)]
        return float(sum(loss for loss, _ in sums) / sum(weight for _, weight in sums))

    assert lines[-1]["val/loss"] == pytest.approx(error(state.average.tensors), rel=1e-12)
    assert lines[-1]["val/loss"] != pytest.approx(error(state.model.state_dict()), rel=1e-4)


@pytest.mark.parametrize("stop", range(1, 12))
def test_interrupted_after_any_update_the_curve_is_the_same(stop, unbroken, tmp_path):
    """Bit for bit: moments, average, position and draws all come back."""
    lines, state, _ = unbroken
    made, first = trainer(tmp_path)

    def record(line):
        first.append(line)
        if line["update"] == stop:
            made.interrupts.pending = "SIGTERM"

    made.record = record
    with pytest.raises(Interrupted, match=f"SIGTERM: saved after update {stop}; the same command"):
        made.run()
    again, rest = trainer(tmp_path)
    assert again.state.progress.update == stop
    again.run()
    assert curve(first + rest) == curve(lines)
    assert torch.equal(weights(again.state.model), weights(state.model))
    for name, value in state.average.tensors.items():
        assert torch.equal(again.state.average.tensors[name], value)


def test_a_finished_run_started_again_does_nothing(unbroken, tmp_path):
    made, _ = trainer(tmp_path)
    made.run()
    again, lines = trainer(tmp_path)
    again.run()
    assert lines == [] and torch.equal(weights(again.state.model), weights(made.state.model))


class Stopped(BaseException):
    """As a kill: nothing is saved, no handler runs."""


@pytest.mark.parametrize("worse", [False, True], ids=["improving", "worsening"])
@pytest.mark.parametrize("killed", range(16))
@pytest.mark.parametrize("often", [8, 24])
def test_each_update_and_each_evaluation_has_one_line(often, killed, worse, unbroken, tmp_path):
    """Killed after any line and after any save; evaluations that improve are saved, others not.

    The first trainer saves after each update or every third, and is killed at one moment; then the
    run is gone on with, and started again when it has ended, twice.
    """
    moment, path = itertools.count(), tmp_path / METRICS

    def start(stop=None):
        made, _ = trainer(tmp_path, checkpoint_every=often)
        made.objective.larger_is_better = worse
        progress, save = made.state.progress, made.checkpoints.save

        def then(action):
            def call(*args):
                action(*args)
                if stop is not None and next(moment) == stop:
                    raise Stopped

            return call

        made.checkpoints.save = then(save)
        evaluated = progress.evaluated == progress.samples
        with Recorder(tmp_path, progress.update, evaluated=evaluated) as recorder:
            made.record = then(recorder.write)
            made.run()

    with pytest.raises(Stopped):
        start(killed)
    start()
    lines, _, _ = unbroken
    assert curve(read(tmp_path)) == curve(lines)
    ended = path.read_bytes()
    start()
    start()
    assert path.read_bytes() == ended


def test_an_evaluation_after_a_resume_is_saved_though_no_update_follows(tmp_path):
    """Asked to leave at the last update, before its evaluation; that one is no better."""
    left, _ = trainer(tmp_path)
    left.objective.larger_is_better = True

    def record(line):
        if line["update"] == 12:
            left.interrupts.pending = "SIGTERM"

    left.record = record
    with pytest.raises(Interrupted):
        left.run()
    resumed, found = [], []
    for _ in range(3):
        made, lines = trainer(tmp_path)
        made.objective.larger_is_better = True
        resumed.append(made.state.progress.stale)
        made.run()
        found.append([name for line in lines for name in line if "/" in name])
    assert found == [["val/loss"], [], []] and resumed == [2, 3, 3]


def test_a_checkpoint_at_an_evaluation_is_made_after_it(tmp_path):
    """One that knows nothing of it would have it done again, and patience would lose count."""
    made, _ = trainer(tmp_path, evaluate_every=8, checkpoint_seconds=1e-9, checkpoint_every=None)
    made.objective.larger_is_better = True  # so that no evaluation but the first is the best
    saved = []
    made.checkpoints.save = lambda state: saved.append(
        (state.progress.update, state.progress.evaluated, state.progress.stale)
    )
    made.run()
    assert saved == [(n, 8 * n, n - 1) for n in range(1, 13)]


def whole_run(folder, world=None):
    made, lines = trainer(folder, world or World.start("cpu"))
    made.run()
    return curve(lines), weights(made.state.model)


@pytest.mark.parametrize("number", [2, 3, 4])
def test_ranks_share_the_microbatches_without_a_trace(ranks, number, unbroken, tmp_path):
    lines, state, _ = unbroken
    answers = ranks(number, whole_run, tmp_path)
    close(answers[0][0], curve(lines))
    for _, found in answers:
        torch.testing.assert_close(found, weights(state.model), rtol=1e-10, atol=1e-12)


def resized(folder):
    """Two ranks as far as update 5, then rank 0 alone, in the same process and trainer."""
    world = World.start("cpu")
    made, _ = trainer(folder, world, evaluate_every=None)
    made.validation = None
    made.settings = dataclasses.replace(made.settings, samples=40)
    made.schedule = Fixed()
    made.run()
    if not world.first:
        return None
    made.move(World.alone())
    made.settings = dataclasses.replace(made.settings, samples=96)
    made.run()
    return weights(made.state.model)


class Fixed:
    def factor(self, samples_seen, total):
        return 1.0


def test_the_world_may_be_replaced_in_mid_run(ranks, tmp_path):
    whole, _ = trainer(tmp_path / "whole", evaluate_every=None)
    whole.validation, whole.schedule = None, Fixed()
    whole.run()
    found, _ = ranks(2, resized, tmp_path / "resized")
    torch.testing.assert_close(found, weights(whole.state.model), rtol=1e-10, atol=1e-12)


def test_a_gradient_that_is_not_finite_stops_the_run_and_says_where(tmp_path):
    made, _ = trainer(tmp_path, loader=Keyed(spoiled=(19,)))
    with pytest.raises(Diverged) as stopped:
        made.run()
    assert str(stopped.value).startswith(
        "update 3 (samples 16 to 23): gradient norm is nan, loss nan; first in 0.weight"
    )
    assert "or set train.skip_nonfinite" in str(stopped.value)
    assert weights(made.state.model).isfinite().all()


def test_a_bounded_number_of_them_can_be_skipped(tmp_path):
    made, lines = trainer(tmp_path, loader=Keyed(spoiled=(19,)), skip_nonfinite=1)
    made.run()
    assert [line["update"] for line in lines if line.get("skipped")] == [3]
    assert weights(made.state.model).isfinite().all() and made.state.progress.samples == 96
    worse, _ = trainer(tmp_path / "2", loader=Keyed(spoiled=(19, 41)), skip_nonfinite=1)
    with pytest.raises(Diverged, match=r"update 6 .* 1 such updates may be skipped"):
        worse.run()
    again, _ = trainer(tmp_path / "2", loader=Keyed(spoiled=(19, 41)), skip_nonfinite=1)
    assert (again.state.progress.update, again.state.progress.skipped) == (4, 1)
    with pytest.raises(Diverged, match=r"update 6 .* 1 such updates may be skipped"):
        again.run()


def test_a_stop_does_not_forget_how_many_were_skipped(tmp_path):
    """Else a run that is stopped often enough could skip any number."""
    made, _ = trainer(tmp_path, loader=Keyed(spoiled=(3,)), skip_nonfinite=1)
    made.interrupts.pending = "SIGTERM"
    with pytest.raises(Interrupted):
        made.run()
    again, _ = trainer(tmp_path, loader=Keyed(spoiled=(41,)), skip_nonfinite=1)
    with pytest.raises(Diverged, match=r"update 6 .* 1 such updates may be skipped"):
        again.run()


def test_a_run_without_improvement_ends_early(tmp_path):
    made, _ = trainer(tmp_path, evaluate_every=8, patience=2)
    made.objective.larger_is_better = True  # the loss falls, so the first stays the best
    made.run()
    progress = made.state.progress
    assert (progress.update, progress.best_update, progress.stale) == (3, 1, 2)
    assert 1 in made.checkpoints.updates()


def test_the_best_checkpoint_outlives_newer_ones(tmp_path):
    made, _ = trainer(tmp_path, checkpoint_every=8, evaluate_every=48)
    made.objective.larger_is_better = True
    made.run()
    assert made.checkpoints.updates() == [6, 11, 12]


def test_a_record_may_be_sparser_than_updates(tmp_path):
    made, lines = trainer(tmp_path, record_every=32)
    made.run()
    assert [line["samples"] for line in lines if "loss" in line] == [32, 64, 96]


def test_the_last_update_is_recorded_however_sparse_the_records(tmp_path):
    made, lines = trainer(tmp_path, record_every=10**6, evaluate_every=None)
    made.validation = None
    made.run()
    assert [line["samples"] for line in lines] == [96]


def test_a_figure_that_is_not_defined_is_never_the_best(tmp_path):
    """Nothing labelled in the validation part: the run ends, and no update counts as best."""
    made, _ = trainer(tmp_path)
    held_out = Keyed()

    def unlabelled():
        batch = held_out.microbatch(1000)
        batch.target.fill_(torch.nan)
        yield batch

    made.validation = unlabelled
    with np.errstate(invalid="ignore"):
        made.run()
    assert made.state.progress.best_update is None and made.state.progress.stale == 4


def test_microbatches_that_only_keep_step_are_not_scored():
    """A rank with fewer than others passes one of them through the model again."""
    data, replica = Keyed(), Replica(network(), World.alone())
    own, again = [data.microbatch(p) for p in (0, 2, 4)], data.microbatch(6)
    filler = dataclasses.replace(again, counts=False)
    found = evaluate(replica, Squares(), own)
    assert evaluate(replica, Squares(), [*own, filler]) == found
    assert evaluate(replica, Squares(), [*own, again]) != found
