"""Whole commands for the tests of launching: a small recipe, and its run by one process."""

import json
import pathlib
import subprocess
import sys

import pytest

RECIPE = """\
name: alone
build:
  dataset: {kind: synthetic, label: class, samples: 64, size: 16}
data: {store: store}
model: {kind: vit, width: 32, depth: 1, heads: 2, patch: 8}
task: {kind: classify}
batch: {samples: 8, micro: 2}
train: {samples: 640, checkpoint_every: 80, precision: fp64}
compute: {device: cpu, threads: 1}
"""
SWATH = [sys.executable, "-m", "swath", "train", "recipe.yaml"]


@pytest.fixture(scope="session")
def alone(tmp_path_factory) -> pathlib.Path:
    """A folder with the recipe, its store, and a run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "recipe.yaml").write_text(RECIPE)
    run(SWATH, folder)
    return folder


def run(command: list[str], folder: pathlib.Path, code: int = 0) -> str:
    """Run ``command`` in ``folder`` and return what it said on stderr."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stderr
    return done.stderr


def updates(folder: pathlib.Path, name: str) -> int:
    """Return how many lines run ``name`` has recorded by now."""
    metrics = folder / f"runs/{name}/metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


def curve(folder: pathlib.Path, name: str) -> list[float]:
    """Return the losses of run ``name``, one for each update, each there once."""
    lines = (folder / f"runs/{name}/metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [line["update"] for line in found if "loss" in line] == list(range(1, 81))
    return [line["loss"] for line in found if "loss" in line]


def same_curve(folder: pathlib.Path, name: str) -> None:
    """Fail unless run ``name`` has the curve of one process."""
    assert curve(folder, name) == pytest.approx(curve(folder, "alone"), rel=0, abs=1e-9)
