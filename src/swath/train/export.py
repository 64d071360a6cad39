"""A trained model as two files: ``model.safetensors`` (weights), ``model.json`` (their meaning).

Together they say everything that predicting needs: the network's settings, its bands in order,
how pixels are normalised, and what the outputs are called. Neither holds code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from swath import here
from swath.config import ConfigError, build, plain
from swath.data.chip import Known, Label
from swath.data.normalize import Normalizer
from swath.files import json_sum, read_json, write_file, write_json
from swath.models import Inputs, Model, Outputs
from swath.nn.features import Told
from swath.nn.lora import Merged
from swath.tasks import Objective, Task
from swath.train.heldout import Trained
from swath.train.init import ABOUT, WEIGHTS
from swath.train.precision import AUTOCAST
from swath.train.tensors import Stored, pack, read_index

log = logging.getLogger(__name__)

VERSION = 1
_SUM = "about_sha256"  # in model.json: the checksum of all else that it says


@dataclass(frozen=True, kw_only=True)
class About:
    """What the weights of a network mean; the content of model.json."""

    model: Model
    inputs: Inputs
    outputs: Outputs
    task: Task
    label: Label
    counts: tuple[float, ...] | None
    """Training samples (or pixels) of each class."""
    normalize: Normalizer
    seed: int
    samples: int
    """Samples seen when these weights were reached."""
    update: int
    trained: Trained
    """What it was trained on."""
    lost: int | None = None
    """Update of better weights of its run, which were damaged on disk; these stand in for them."""

    def bind(self) -> Objective:
        """Return the task on the labels and bands that the network was trained on."""
        counts = None if self.counts is None else np.array(self.counts)
        return self.task.bind(self.label, counts, self.inputs)


@dataclass(frozen=True)
class LoadedModel:
    """A network ready to predict: in eval mode, with trained weights."""

    network: nn.Module
    objective: Objective
    about: About

    @property
    def any_bands(self) -> bool:
        """Whether the network takes any bands, being told which they are."""
        return "bands" in getattr(self.network, "asks", ())

    def answer(self, image: Tensor, precision: str, known: Known | None = None) -> Tensor:
        """Return what the model says of normalised images (b, c, h, w), computed as a run's own
        score is. known: of the images, for a network that asks for it.

        The network's parameters must be in the dtype of ``precision``, and torch set to it; see
        :mod:`swath.train.precision`.
        """
        narrow = AUTOCAST.get(precision)
        image = image.to(next(self.network.parameters()).dtype)
        with torch.autocast(image.device.type, dtype=narrow, enabled=narrow is not None):
            told = self.network if known is None else cast(nn.Module, Told(self.network, known))
            return self.objective.predict(told, image)

    @property
    def inputs(self) -> Inputs:
        return self.about.inputs

    @property
    def outputs(self) -> Outputs:
        return self.about.outputs

    @property
    def label(self) -> Label:
        return self.about.label

    @property
    def normalize(self) -> Normalizer:
        return self.about.normalize


def save_model(
    folder: pathlib.Path, weights: Mapping[str, Tensor | Stored | Merged], about: About
) -> None:
    """Write weights and what they mean below ``folder``, replacing older ones.

    weights: whole; those of a checkpoint are read one after the other, so that any model fits.
    """
    written = write_file(folder / WEIGHTS, pack(weights, {"format": "pt"}))
    fields = {f.name: plain(getattr(about, f.name)) for f in dataclasses.fields(about)}
    fields = {"version": VERSION, "sha256": written["sha256"], **fields}
    write_json(folder / ABOUT, {**fields, _SUM: json_sum(fields)})


def weights_of(checkpoint: str | pathlib.Path) -> dict[str, Stored]:
    """Return the weights in a checkpoint's folder, by name and still on disk: those of the moving
    average where there is one. How many ranks wrote it, and in which layout, does not matter."""
    parts: dict[str, dict[str, Stored]] = {"model": {}, "average": {}}
    for name, stored in read_index(pathlib.Path(checkpoint)).items():
        part, _, own = name.partition("/")
        parts.setdefault(part, {})[own] = stored
    return {**parts["model"], **parts["average"]}


def load_model(folder: str | pathlib.Path, device: str | torch.device = "cpu") -> LoadedModel:
    """Return the model of a run folder, on ``device``.

    ConfigError if there is none, if the weights are damaged or of another model.json, or if a
    newer Swath wrote them. Warns, on rank 0, if they are not the best that their run had.
    """
    folder = pathlib.Path(folder)
    about = read_about(folder)
    if about.lost is not None and not here.rank():
        log.warning(
            "%s: the best weights of this run, after update %d, were lost with a damaged "
            "checkpoint; these, after update %d, stand in for them",
            *(folder / WEIGHTS, about.lost, about.update),
        )
    try:
        content = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise ConfigError(f"{folder / WEIGHTS}: cannot be read: {error.strerror}") from error
    expected = json.loads((folder / ABOUT).read_text()).get("sha256")
    if hashlib.sha256(content).hexdigest() != expected:
        raise ConfigError(
            f"{folder / WEIGHTS}: does not match the checksum in {ABOUT}: it is damaged, or from"
            " another run; swath train writes both anew from the last checkpoint"
        )
    with torch.device("cpu"):
        network = about.model.build(about.inputs, about.outputs)
    network.load_state_dict(safetensors.torch.load(content))
    network.to(device).eval().requires_grad_(False)
    return LoadedModel(network, about.bind(), about)


def fingerprint(model: LoadedModel) -> str:
    """Return a word for the weights of ``model``, as loaded, and all that says what they mean."""
    about = model.about
    parts = (about.model, about.task, about.label, about.normalize)
    digest = hashlib.sha256(json.dumps([plain(part) for part in parts]).encode())
    for name, value in model.network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def newest_state(folder: pathlib.Path) -> Any:
    """Return what state.json says in the newest checkpoint of a run folder, whatever that is: {} if
    it cannot be read, None if there is no checkpoint."""
    states = sorted((folder / "checkpoints").glob("[0-9]*/state.json"))
    if not states:
        return None
    try:
        return read_json(states[-1])
    except ConfigError:
        return {}


def _how_far(folder: pathlib.Path) -> str:
    """Return the end of a message that ``folder`` has no model: how far its run is, what to do."""
    numbers = newest_state(folder)
    if numbers is None:
        return "; swath train writes it at the end of a run"
    try:
        at, whole = int(numbers["samples"]), int(numbers["settings"]["train"]["samples"])
    except (ValueError, LookupError, TypeError):
        return "; swath train goes on with the run and writes it at the end"
    best = numbers.get("best_update")
    which = f"the best so far, after update {best}" if best is not None else "as it is now"
    return (
        f" yet: the run is unfinished, at sample {at} of {whole}. swath train {folder} goes on "
        f"with it; swath export {folder} writes the model {which}"
    )


def read_about(folder: str | pathlib.Path) -> About:
    """Return what model.json says; ConfigError if there is none, if it is damaged or edited, or if
    it is from a newer Swath."""
    path = pathlib.Path(folder) / ABOUT
    if not path.exists():
        raise ConfigError(f"{path}: there is no trained model{_how_far(path.parent)}")
    fields = read_json(path)
    version = fields.get("version") if isinstance(fields, dict) else None
    if not isinstance(version, int):
        raise ConfigError(
            f"{path}: damaged: it says no version; swath train writes it anew from the last"
            " checkpoint"
        )
    if version > VERSION:
        raise ConfigError(f"{path}: written by a newer Swath; install that one to use it")
    if fields.pop(_SUM, None) != json_sum(fields):
        raise ConfigError(
            f"{path}: does not match its own checksum: it was damaged, or edited by hand; "
            f"swath export {path.parent} writes it anew from the checkpoints"
        )
    for name in ("version", "sha256"):
        fields.pop(name, None)
    return build(About, fields, str(path))
