"""Windows through a model, several at once where that changes no bit of the answer.

The answer to a window is what the model says when it is given that window alone. Kernels may add
in another order when several windows go through together (matrix products do, convolutions on a
CPU do not), so the first group is answered both ways; if a bit differs, windows go one at a time
on this machine. Kernels are chosen by shape, never by pixel values, so one group shows it.

Answers are averaged over turned and mirrored copies of the window if asked for.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from swath.data.chip import Known
from swath.predict.blend import quantise

Answer = Callable[..., Tensor]
"""Windows (b, c, tile, tile) to probabilities or values, (b, k) or (b, k, tile, tile); called with
what is known of the windows as well, if anything is."""


class Forward:
    """Answers groups of windows; see the file's opening."""

    def __init__(
        self,
        answer: Answer,
        *,
        at_once: int,
        symmetries: int,
        values: bool,
        tell: Callable[[str], None],
    ) -> None:
        """at_once: windows in one pass. symmetries: 1, 4 (quarter turns) or 8 (mirrored too).
        values: answers are numbers, not probabilities. tell: is told in words if one
        window is computed at a time after all."""
        self.at_once = at_once
        self._answer = answer
        self._symmetries = symmetries
        self._values = values
        self._tell = tell
        self._tried = at_once == 1

    @torch.inference_mode()
    def __call__(
        self, windows: Float[Tensor, "b c tile tile"], known: Known | None = None
    ) -> Shaped[Tensor, "b k tile tile"]:
        """Return whole numbers (see :mod:`swath.predict.blend`) or float64 values."""
        total = self._numbers(self._dense(windows, known))
        if self._symmetries == 1:
            return total
        for turn in range(1, self._symmetries):
            total += self._numbers(_turn_back(self._dense(_turn(windows, turn), known), turn))
        if self._values:
            return total / self._symmetries
        return (total + self._symmetries // 2) // self._symmetries

    def _numbers(self, answers: Tensor) -> Tensor:
        return answers.double() if self._values else quantise(answers)

    def _dense(self, windows: Tensor, known: Known | None) -> Tensor:
        if not self._tried:
            self._try(windows, known)
        every, each = range(len(windows)), self.at_once
        groups = [list(every[i : i + each]) for i in range(0, len(windows), each)]
        answers = torch.cat([self._group(windows, rows, known) for rows in groups])
        if answers.ndim == 2:  # one answer a window
            answers = answers[:, :, None, None].expand(-1, -1, *windows.shape[-2:])
        return answers

    def _group(self, windows: Tensor, rows: list[int], known: Known | None) -> Tensor:
        """Answer the windows ``rows``, at most ``at_once``; fewer are filled up, for the same
        shape."""
        full = rows + rows[:1] * (self.at_once - len(rows))
        return self._asked(windows, full, known)[: len(rows)]

    def _asked(self, windows: Tensor, rows: list[int], known: Known | None) -> Tensor:
        some = windows[rows] if rows != list(range(len(windows))) else windows.contiguous()
        return self._answer(some) if known is None else self._answer(some, known.only(rows))

    def _try(self, windows: Tensor, known: Known | None) -> None:
        rows = list(range(min(len(windows), self.at_once)))
        together = self._group(windows, rows, known)
        alone = torch.cat([self._asked(windows, [row], known) for row in rows])
        self._tried = True
        if not torch.equal(together, alone):
            self._tell(
                "windows are computed one at a time here, so that the map is exact, bit for bit"
            )
            self.at_once = 1


def _turn(images: Tensor, turn: int) -> Tensor:
    """Return images mirrored if ``turn`` >= 4, then turned by ``turn`` % 4 quarters."""
    return torch.rot90(images.flip(-1) if turn >= 4 else images, turn % 4, (-2, -1))


def _turn_back(images: Tensor, turn: int) -> Tensor:
    images = torch.rot90(images, -(turn % 4), (-2, -1))
    return images.flip(-1) if turn >= 4 else images
