"""What settings classes tell of their fields: which of them change no result."""

import dataclasses
import typing

from swath.config import docs
from swath.fields import classes_in, free_fields
from swath.settings import Run
from swath.train.job import FREE, RESULT, TrainJob

OF_THE_MACHINE = {
    "folder",
    "build.threads",
    "data.store",
    "data.stage",
    "init.from",
    "train.checkpoint_every",
    "train.checkpoint_seconds",
    "train.checkpoint_async",
    "train.keep",
    "train.record_every",
    "compute",
    "parallel",
    "profile",
    "predict.windows_at_once",
}
"""A field that is not here is part of what a run is: another value is another run."""


def test_every_setting_that_changes_no_result_is_meant_to():
    """A new one has to be marked where it stands, and named here."""
    assert set(free_fields(Run)) == OF_THE_MACHINE


def test_a_run_and_its_training_agree_on_what_changes_no_result():
    trained = {field.name for field in dataclasses.fields(TrainJob)}
    assert set(FREE) == {name for name in OF_THE_MACHINE if name.split(".")[0] in trained}
    assert (
        *("seed", "data", "augment", "model", "task", "init", "adapt"),
        *("batch", "optim", "schedule", "train"),
    ) == RESULT


def test_help_says_what_changes_no_result():
    """And of nothing else."""
    for path in _paths(Run):
        *outer, name = path.split(".")
        cls: type = Run
        for part in outer:
            cls = classes_in(typing.get_type_hints(cls)[part])[0]
        assert docs(cls)[name].endswith("Changes no result.") == (
            path.removesuffix("_") in OF_THE_MACHINE
        ), path


def _paths(cls: type, path: str = "") -> list[str]:
    """Return every field of settings and of those in them that are not free as a whole."""
    found = []
    for field in dataclasses.fields(cls):
        found.append(here := f"{path}{field.name}")
        inside = classes_in(typing.get_type_hints(cls)[field.name])
        if inside and here not in OF_THE_MACHINE:
            found += _paths(inside[0], f"{here}.")
    return found
