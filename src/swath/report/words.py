"""Numbers in words, as page and terminal print them: counts, shares with their errors, areas."""

from __future__ import annotations

from dataclasses import dataclass

NONE = "–"
"""Stands for what is not known."""


def whole(value: float | None) -> str:
    """Return a count with all its figures: 12 345 678."""
    return NONE if value is None else f"{value:,.0f}".replace(",", " ")


def percent(share: float | None, error: float | None = None) -> str:
    """Return a share and its standard error: "71.2 ± 0.4 %"."""
    if share is None:
        return NONE
    return f"{100 * share:.1f}" + (f" ± {100 * error:.1f}" if error is not None else "") + " %"


@dataclass(frozen=True)
class AreaUnit:
    """The unit that areas of one table are said in."""

    name: str
    factor: float
    """From the unit that the areas are given in."""
    places: int

    def said(self, area: float | None, error: float | None = None) -> str:
        """Return an area and its standard error, without the unit: "4 321 ± 12"."""
        if area is None:
            return NONE
        numbers = [f"{self.factor * a:,.{self.places}f}" for a in (area, error) if a is not None]
        return " ± ".join(numbers).replace(",", " ")


def area_unit(unit: str, largest: float) -> AreaUnit:
    """Return how to say areas given in ``unit``, "ha" or "px", the largest of which is ``largest``:
    in km² from 100 000 ha on."""
    if unit == "ha" and largest >= 1e5:
        return AreaUnit("km²", 0.01, 1)
    return AreaUnit(unit, 1.0, 1 if unit == "ha" and largest < 10 else 0)
