"""One HTML page of a run that opens from disk: no network, no other file.

It shows what a run folder holds: the map over its imagery, the model against its baselines, the
accuracy of each class, the course of training, where time went, examples, and all settings. What
is not there is left out. Pictures, curves and their colours are inside the page; the template is
``page.html.j2``.
"""

from __future__ import annotations

import datetime
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from swath.config import ConfigError, dump, kind_of, plain
from swath.data.augment import Augment
from swath.data.imagery import Imagery
from swath.data.mix import Also
from swath.data.settings import DataSettings
from swath.data.store import Store
from swath.files import write_file
from swath.predict.settings import FOLDER
from swath.report.classes import accuracy
from swath.report.compare import comparison, headline
from swath.report.curves import course, curves
from swath.report.examples import examples
from swath.report.filled import filled_in
from swath.report.maps import map_sections
from swath.report.speed import profiles, use
from swath.report.viewed import viewed
from swath.report.words import whole
from swath.train.export import ABOUT, About, LoadedModel, fingerprint, load_model, read_about
from swath.train.heldout import has_test
from swath.train.record import read, starts
from swath.train.settings import Compute
from swath.train.unfinished import how_far
from swath.version import VERSION

PAGE = "report.html"
HERE = pathlib.Path(__file__).parent


def write(
    folder: str | pathlib.Path,
    *,
    name: str,
    settings: Any,
    data: DataSettings,
    rows: Sequence[Mapping[str, Any]] = (),
    scores: Mapping[str, Mapping[str, Any]] | None = None,
    imagery: Imagery | None = None,
    precision: str = "fp32",
    compute: Compute = Compute(),  # noqa: B008  (frozen)
) -> pathlib.Path:
    """Write report.html into the run folder and return its path.

    settings: the run's settings, any dataclass; shown part by part.
    rows: figures of the model, first, and of its baselines: each with a name.
    scores: the content of scores.json, "model" and "map".
    imagery: the scene that was mapped; None: the store's own pixels are shown.
    precision: that of training, in which the examples are computed; compute: its threads are used.

    Raises ConfigError if there is nothing in the folder to report on.
    """
    folder = pathlib.Path(folder)
    records = read(folder) if folder.exists() else []
    about = read_about(folder) if (folder / ABOUT).exists() else None
    if not records and about is None and not rows:
        raise ConfigError(
            f"{folder}: there is nothing to report on yet: no model, no figures, no baselines; run "
            "swath train first"
        )
    store = Store.open(data.store) if Store.exists(data.store) else None
    content = _content(name, about, store, records, dict(scores or {}), list(rows))
    content["facts"] = _facts(about, store, data.also)
    if about is not None:
        model = load_model(folder)
        content["maps"] = map_sections(
            folder / FOLDER, about.label, fingerprint(model), imagery, store, data.split
        )
        if store is not None:
            content["examples"] = _pictures(model, data, settings.augment, precision, compute)
    if far := how_far(folder):
        content["unfinished"] = f"{whole(far[0])} of {whole(far[1])} samples, unfinished."
    mappable = about is not None and about.label.kind == "mask" and imagery is not None
    if about is not None and about.task.labels is None:
        mappable = False
    tested = has_test(data)
    missing = {
        "export": ("the model as it stands", about is None and far is not None),
        "predict": ("the map", mappable and not content["maps"]),
        "evaluate": (
            "accuracy" if about is None or about.task.labels is not None else "its scores",
            about is not None and not scores and tested and not about.task.taught,
        ),
        "baseline": (
            "baselines",
            bool(getattr(settings, "baselines", ())) and tested and len(rows) <= bool(scores),
        ),
    }
    content["missing"] = [
        (f"swath {verb} {folder}", adds) for verb, (adds, lacks) in missing.items() if lacks
    ]
    content["profiles"] = profiles(folder)
    content["use"] = use(records, starts(folder))
    content["settings"] = _settings(settings)
    content["sections"] = _sections(content)
    write_file(folder / PAGE, render(content).encode())
    return folder / PAGE


def _pictures(
    model: LoadedModel, data: DataSettings, augment: Augment, precision: str, compute: Compute
) -> dict[str, Any] | None:
    """Return pictures of samples with what the task of ``model`` has to show of them."""
    shows = model.about.task.shows
    if shows == "views":
        return viewed(model, data, augment)
    return (filled_in if shows == "filled" else examples)(model, data, precision, compute)


def render(content: Mapping[str, Any]) -> str:
    """Return the page of ``content``; names that it lacks are sections left out."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_unbroken,
    )
    inside = {part: (HERE / f"page.{part}").read_text() for part in ("css", "js")}
    return environment.get_template("page.html.j2").render(**inside, **content)


def _unbroken(value: Any) -> Any:
    """Return what the page prints for ``value``: numbers of a text do not break between thousands.

    Not in what is written for a program, as drawings and styles are.
    """
    if type(value) is not str:
        return value
    return re.sub(r"(?<=\d) (?=\d{3}(?!\d))", "\N{NARROW NO-BREAK SPACE}", value)


def _content(
    name: str,
    about: About | None,
    store: Store | None,
    records: list[dict[str, Any]],
    scores: dict[str, Any],
    rows: list[Mapping[str, Any]],
) -> dict[str, Any]:
    label = about.label if about else store.contents.label if store else None
    unit = label.unit if label else ""
    model = rows[0] if rows and about is not None and scores else {}
    baselines = rows[1:] if model else rows
    now = datetime.datetime.now(datetime.UTC)
    mapped = scores.get("map")
    return {
        "name": name,
        "summary": _summary(about, store),
        "tiles": headline(model, baselines, unit) if model else [],
        "maps": [],
        "comparison": comparison(rows, 0 if model else -1, unit),
        "accuracy": accuracy(mapped, label) if mapped and label else None,
        "charts": curves(records),
        "training": course(records),
        "examples": None,
        "footer": f"Written by Swath {VERSION} on {now:%d %B %Y, %H:%M} UTC.",
    }


def _summary(about: About | None, store: Store | None) -> str:
    words = []
    if about is not None:
        learns = about.task.learns or kind_of(type(about.task)).capitalize()
        words.append(f"{learns} by {kind_of(type(about.model))}")
        words.append(f"{len(about.inputs.bands)} bands")
        if about.label.has_classes and about.task.labels is not None:
            words.append(f"{len(about.label.classes)} classes")
    if store is not None:
        grounds = [ground.name for ground in store.contents.grounds]
        things = f"{whole(store.samples)} samples"
        words.append(f"{things} of {grounds[0]}" if len(grounds) == 1 else things)
    return ", ".join(words) + "." if words else ""


def _facts(about: About | None, store: Store | None, also: Sequence[Also]) -> list[tuple[str, str]]:
    facts = []
    if about is not None:
        facts += [
            ("Model", _line(about.model)),
            ("Task", _line(about.task)),
            ("Bands", ", ".join(band.name for band in about.inputs.bands)),
            ("Seed", str(about.seed)),
            ("Weights", f"after {whole(about.samples)} samples, update {whole(about.update)}"),
        ]
    if store is not None:
        contents = store.contents
        facts.append(("Store", f"{store.path}, {whole(store.samples)} samples"))
        facts += [("Further store", f"{one.store}, weight {one.weight:g}") for one in also]
        for modality in contents.modalities:
            size = f"{modality.height} x {modality.width} px, {modality.dtype}"
            facts.append((f"Imagery {modality.name}", f"{modality.sensor.name}: {size}"))
        if contents.source:
            facts.append(("Source", contents.source))
        if contents.licence:
            facts.append(("Licence", contents.licence))
    return facts


def _line(settings: Any) -> str:
    fields = plain(settings)
    kind = fields.pop("kind")
    rest = ", ".join(f"{name} {value}" for name, value in fields.items() if value is not None)
    return f"{kind} ({rest})" if rest else kind


def _settings(settings: Any) -> list[dict[str, Any]]:
    """Return one block for each part of the settings, and one of all single values."""
    import yaml

    parts = plain(settings)
    single = {k: v for k, v in parts.items() if not isinstance(v, dict | list)}
    blocks = [{"title": "run", "text": _yaml(yaml, single), "open": False}] if single else []
    for title, value in parts.items():
        if title not in single and value:
            blocks.append({"title": title, "text": _yaml(yaml, value), "open": False})
    return blocks or [{"title": "settings", "text": dump(settings), "open": False}]


def _yaml(yaml: Any, value: Any) -> str:
    return yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=False, allow_unicode=True)


def _sections(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    titles = {
        "map": ("Map", "maps"),
        "comparison": ("Baselines", "comparison"),
        "accuracy": ("Accuracy", "accuracy"),
        "training": ("Training", "charts"),
        "time": ("Time", "profiles"),
        "examples": ("Examples", "examples"),
    }
    there = [(name, title) for name, (title, key) in titles.items() if content.get(key)]
    return [*there, ("settings", "Settings")]
