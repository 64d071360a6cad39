"""Which weights a run begins with, in place of random ones.

The file's checksum, and not its path, is part of what the run is: it is kept with the settings of
the run folder and of each checkpoint. A run that has a checkpoint goes on without the file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from dataclasses import dataclass
from typing import Any, Literal

from swath.config import ConfigError
from swath.fields import free

WEIGHTS, ABOUT = "model.safetensors", "model.json"


@dataclass(frozen=True, kw_only=True)
class Init:
    """Weights that a run begins with, matched by name; what they lack begins at random."""

    from_: str = free()
    """A run folder with a trained model, or a file: .safetensors, or one of torch that holds
    tensors alone (.pt, .pth, .bin). What counts is its checksum, sha256; where it lies does not."""
    sha256: str | None = None
    """Checksum of the file; null: of whatever is there when the run begins, whose folder keeps
    it."""
    bands: tuple[str, ...] | None = None
    """Bands of the weights in their order, by the names that the data have; null: as the run folder
    says, or the file's are taken for the data's own."""
    missing: Literal["nearest", "mean", "zero"] = "nearest"
    """What a band begins with that the weights do not have. nearest: it shares the weights of the
    one nearest in wavelength; mean: the mean over their bands; zero: nothing."""

    def __post_init__(self) -> None:
        if self.bands is not None and len(set(self.bands)) < len(self.bands):
            raise ConfigError(f"bands={list(self.bands)}: one is named twice")

    @property
    def file(self) -> pathlib.Path:
        """The file of the weights; ConfigError if there is none."""
        path = pathlib.Path(self.from_)
        if path.is_dir():
            if not (path / WEIGHTS).exists():
                why = (
                    "its run is not at its end: swath train goes on with it, swath export writes "
                    "its model as it is now"
                    if (path / "checkpoints").is_dir()
                    else "name a run folder, or a .safetensors file"
                )
                raise ConfigError(f"init.from={path}: there is no {WEIGHTS} in this folder; {why}")
            return path / WEIGHTS
        if not path.exists():
            raise ConfigError(
                f"init.from={path}: there is no such folder or file, and this run has no checkpoint"
                " to go on from; name a run folder, or a .safetensors file"
            )
        return path


def settled(init: Init, folder: pathlib.Path, before: dict[str, Any] | None) -> Init:
    """Return ``init`` with the checksum of its weights, for the run in ``folder``.

    before: the settings of the run so far; None: it begins. ConfigError if the weights are not
    those that the run began with, or not those that ``init.sha256`` names, or not there while
    there is nothing to go on from.
    """
    began = ((before or {}).get("init") or {}).get("sha256")
    if not pathlib.Path(init.from_).exists() and began is not None:
        return dataclasses.replace(init, sha256=init.sha256 or began)
    found = checksum(init.file)
    if init.sha256 is not None and found != init.sha256 and init.sha256 != began:
        raise ConfigError(
            f"init.from={init.from_}: its checksum is {found}, init.sha256 asks for {init.sha256};"
            " name the right file, or leave init.sha256 out"
        )
    if began is not None and found != began:
        raise ConfigError(
            f"init.from={init.from_}: these are other weights (sha256 {found[:12]}) than those that"
            f" {folder} began with ({began[:12]}); put those back, or move these away: a run that"
            " has a checkpoint goes on without them. Or begin another run with name=ANOTHER"
        )
    return dataclasses.replace(init, sha256=found)


def checksum(file: pathlib.Path) -> str:
    """Return the SHA-256 of a file of weights; of a run's model as its model.json tells it."""
    about = file.with_name(ABOUT)
    if file.name == WEIGHTS and about.exists():
        try:
            told = json.loads(about.read_text()).get("sha256")
        except (ValueError, AttributeError, OSError):
            told = None
        if isinstance(told, str):
            return told
    digest = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while block := opened.read(1 << 24):
                digest.update(block)
    except OSError as error:
        raise ConfigError(f"init.from: {file} cannot be read: {error.strerror}") from error
    return digest.hexdigest()
