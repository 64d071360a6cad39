"""What a store holds, as tables for a terminal: samples, classes by part, bands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swath.data.places import known
from swath.data.split import Split, select
from swath.data.stats import statistics
from swath.data.touch import CutObjects, cut_objects

if TYPE_CHECKING:
    from swath.data.store import Store

_PARTS = ("train", "val", "test")


def summary(store: Store, split: Split | None = None) -> Any:
    """Return rich tables of ``store`` under ``split`` (None: its own); print them with rich."""
    from rich.console import Group

    chosen = split or Split(**store.attributes["split"])
    selections = {part: select(store, split, part) for part in _PARTS}  # type: ignore[arg-type]
    bands = statistics(store, selections["train"])
    tested = len(selections["test"].indices) > 0
    touching = selections["test"].share_touching() if tested else None
    cut = cut_objects(selections["test"], selections["train"])
    return Group(
        _facts(store, chosen, touching, cut, tested),
        _parts(store, selections),
        *(_bands(store, name, found) for name, found in bands.items()),
    )


def _facts(
    store: Store, split: Split, touching: float | None, cut: CutObjects | None, tested: bool
) -> Any:
    from rich.table import Table

    table = Table(show_header=False, box=None)
    contents = store.contents
    shapes = ", ".join(
        f"{m.name} {len(m.sensor.bands)} x {m.height} x {m.width} {m.dtype}"
        for m in contents.modalities
    )
    left = store.attributes.get("left_out")
    label = contents.label
    classes = f", {len(label.classes)} classes" if label.has_classes else ""
    said = "unknown" if touching is None else f"{touching:.1%}"
    rows = (
        ("store", f"{store.path}, {store.samples} samples"),
        ("images", shapes),
        ("label", f"{label.kind}{classes}"),
        *((f"{what} known", f"{n} of {store.samples}") for what, n in known(store).items()),
        ("split", f"by {split.by}, val {split.val:g}, test {split.test:g}, seed {split.seed}"),
        *([("test windows that touch training pixels", said)] if tested else []),
        *([_cut(cut)] if cut is not None else []),
        *([("left out", ", ".join(f"{n} {why}" for why, n in left.items()))] if left else []),
        ("licence", contents.licence or "not stated"),
        ("source", contents.source or "not stated"),
    )
    for name, value in rows if split.by != "given" else [r for r in rows if r[0] != "split"]:
        table.add_row(name, value)
    if split.by == "given":
        table.add_row("split", "as published")
    return table


def _cut(cut: CutObjects) -> tuple[str, str]:
    known = f"{cut.share:.1%}; {cut.both} of {cut.tested} {cut.grouping}s on both sides"
    return f"test windows with {cut.grouping}s trained on", known


def _parts(store: Store, selections: dict[str, Any]) -> Any:
    """Return a table of how much each part has, of each class if there are any."""
    from rich.table import Table

    label = store.contents.label
    things = "pixels" if label.per_pixel else "samples"
    note = " (those in several chips count in each)" if things == "pixels" else ""
    unlabelled = label.kind == "none"
    table = Table(title=None if unlabelled else f"Labelled {things}{note}")
    table.add_column("" if unlabelled else label.kind)
    for part in _PARTS:
        table.add_column(part, justify="right")
    counts = {part: selections[part].counts for part in _PARTS}
    for i, name in enumerate(label.classes if len(counts["train"]) else ()):
        table.add_row(name, *(f"{int(counts[part][i]):,}" for part in _PARTS))
    table.add_section()
    if not unlabelled:
        table.add_row(f"{things} in all", *(f"{selections[part].size:,}" for part in _PARTS))
    having = "samples with any of them" if label.per_pixel else "samples"
    table.add_row(having, *(f"{len(selections[part].indices):,}" for part in _PARTS))
    return table


def _bands(store: Store, name: str, found: list[Any]) -> Any:
    from rich.table import Table

    sensor = store.modality(name).sensor
    unit = f", in {sensor.scale:g} {sensor.unit}" if sensor.unit and sensor.scale != 1 else ""
    unit += f"; a count of 0 is {sensor.offset:g} {sensor.unit}" if sensor.offset else ""
    table = Table(title=f"Bands of {name} over the training part{unit}")
    for column in ("band", "no-data", "mean", "sd", "min", "2 %", "median", "98 %", "max"):
        table.add_column(column, justify="left" if column == "band" else "right")
    for b in found[:20]:
        values = (b.mean, b.std, b.low, b.p02, b.p50, b.p98, b.high)
        table.add_row(b.name, f"{b.nodata:.2%}", *(f"{v:.5g}" for v in values))
    if len(found) > 20:
        table.add_row(f"and {len(found) - 20} more")
    return table
