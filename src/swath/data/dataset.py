"""Where samples come from: the settings of a dataset, and the source that they open.

To add a dataset, add one file to ``swath/datasets``: a :class:`Dataset` with an ``open`` that
returns a :class:`Source`. The builder does the rest: it knows no files, the source no store. What
``swath predict`` maps is the dataset's to say as well: ``scene`` and ``assume``.
"""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from swath.config import Choice
from swath.data.chip import Chip, Contents

if TYPE_CHECKING:
    from swath.data.imagery import Imagery


class Source(Protocol):
    """Samples by number, as a dataset finds them on disk."""

    contents: Contents

    def __len__(self) -> int: ...

    def chip(self, index: int) -> Chip:
        """Return sample ``index``, always the same for the same index, from any thread.

        Its images have the shapes and types of ``contents.modalities``; its label is what
        ``contents.label`` says; its groups are those of ``contents.groupings``: an int or, for
        ``contents.grouped_pixels``, an (h, w) int32 array like the label, -1 where there is
        none. Raises ConfigError if a file cannot be read, naming it.
        """


@dataclass(frozen=True, kw_only=True)
class Dataset(Choice):
    """Settings of a dataset: which files, which bands, which labels."""

    package: ClassVar[str] = "swath.datasets"

    def open(self) -> Source:
        """Return the samples; reads headers and labels, no pixels. ConfigError if that fails."""
        raise TypeError(f"{type(self).__name__} has no open()")

    def resume(self, notes: pathlib.Path | None, progress: bool = True) -> Source:
        """Return the samples, as :meth:`open`, for a store that is built or gone on with.

        notes: a folder, made when something is kept there, for what is slow to find; it is there
            again the next time. None: nothing can be kept. progress: show how far finding them is.
        """
        return self.open()

    def scene(self) -> Imagery | None:
        """Return the scene that the samples are cut from, which is mapped if no other is named."""
        return None

    def assume(self, scene: Imagery) -> Imagery:
        """Return ``scene``, which names no sensor, as seen by that of the dataset's images; as it
        is where they have none by name."""
        return scene
