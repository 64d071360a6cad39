"""Weights in a file, by name and still on disk, and what the run that made them says of them.

A file is safetensors, or one of torch that holds nothing but tensors, numbers and words: that is
read with ``weights_only``, so that nothing of it is ever executed.
"""

from __future__ import annotations

import hashlib
import pathlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import safetensors
import torch
from torch import Tensor

from swath.config import ConfigError
from swath.train.export import About, read_about
from swath.train.init import ABOUT, WEIGHTS, checksum

_INSIDE = ("model", "state_dict", "model_state_dict", "teacher", "module")
"""Under which of these names files of torch keep their tensors, beside an optimiser's."""


@dataclass(frozen=True)
class Given:
    """A tensor that may be had."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]

    def shaped(self, shape: tuple[int, ...]) -> Given:
        """Return the same numbers in another shape."""
        return Given(shape, lambda: self.read().reshape(shape))

    def part(self, number: int, parts: int) -> Given:
        """Return one of equal parts along the first dim."""
        rows = self.shape[0] // parts
        shape = (rows, *self.shape[1:])
        return Given(shape, lambda: self.read()[number * rows : (number + 1) * rows])


def read_weights(file: pathlib.Path, sha256: str | None) -> dict[str, Given]:
    """Return the tensors in ``file`` by name; ConfigError if it cannot be read, or is not what
    ``sha256`` says; None: a run's model is what its model.json says, another file is not asked."""
    told = checksum(file) if file.name == WEIGHTS and file.with_name(ABOUT).exists() else None
    if (wanted := sha256 or told) is not None:
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if told not in (None, found):
            raise ConfigError(
                f"init.from: {file} does not match the checksum in {ABOUT}: it is damaged, or"
                " from another run; swath train writes both anew from the last checkpoint"
            )
        if found != wanted:
            raise ConfigError(
                f"init.from: {file} was replaced since this began: its checksum is {found[:12]},"
                f" and was {wanted[:12]}; put that file back, or begin again with this one"
            )
    if file.suffix == ".safetensors":
        return _safetensors(file)
    return {name: Given(tuple(t.shape), _same(t)) for name, t in _of_torch(file).items()}


def about_weights(file: pathlib.Path) -> About | None:
    """Return what the run that made ``file`` says of it; None if it is no run's model."""
    if file.name == WEIGHTS and file.with_name(ABOUT).exists():
        return read_about(file.parent)
    return None


def _safetensors(file: pathlib.Path) -> dict[str, Given]:
    def reader(name: str) -> Callable[[], Tensor]:
        return lambda: opened.get_tensor(name)

    try:
        opened = safetensors.safe_open(file, "pt")
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigError(f"init.from: {file} is no safetensors file: {error}") from error
    shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    return {name: Given(shape, reader(name)) for name, shape in shapes.items()}


def _of_torch(file: pathlib.Path) -> dict[str, Tensor]:
    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise ConfigError(
            f"init.from: {file} is no file of torch that holds tensors alone:"
            f" {str(error).splitlines()[0]}; save its state_dict as .safetensors where it was made"
        ) from error
    for name in _INSIDE:
        if isinstance(held, Mapping) and isinstance(held.get(name), Mapping):
            held = held[name]
    found = {n: t for n, t in held.items() if isinstance(t, Tensor)} if _named(held) else {}
    if not found:
        raise ConfigError(f"init.from: {file} holds no tensors by name")
    return found


def _named(held: object) -> bool:
    return isinstance(held, Mapping) and all(isinstance(name, str) for name in held)


def _same(tensor: Tensor) -> Callable[[], Tensor]:
    return lambda: tensor
