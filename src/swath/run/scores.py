"""Verbs that tell how good a model is: its scores, those of baselines, one page of both."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from swath import here
from swath.config import ConfigError, kind_of
from swath.predict.settings import FOLDER as MAPS
from swath.run.scene import scene_of
from swath.run.start import named, one_process
from swath.run.store import build
from swath.run.training import BY_CHIP
from swath.settings import Run
from swath.train.job import check_trained

if TYPE_CHECKING:
    from swath.data.store import Store
    from swath.report.compare import Row

ONCE = "every pixel counts once"
"""How figures of a map count what they are made from."""


@named
def evaluate(run: Run) -> dict[str, dict[str, Any]]:
    """Score the model, and its map if there is one, on the test part; write scores.json.

    "model": windows of the test part one by one; where chips overlap, a pixel counts in each.
    "map": the maps of the store's scenes, every held-out pixel once, with areas and their standard
    errors. "counting" says which of both it is. Of several ranks all score the
    model; the first alone scores the maps and writes, the others return "model" only. A map that
    another model made, or of another scene on the same ground, is left out, with a warning.

    ConfigError if some of the test part was trained on, the run folder belongs to a model of other
    settings, or there are maps that its task's answers cannot make.
    """
    from swath.data.store import Store
    from swath.predict.evaluate import maps_to_score, score_maps, write_scores
    from swath.predict.layers import check_mappable
    from swath.train.export import fingerprint, load_model
    from swath.train.score import score

    job = run.job()
    check_trained(run.place, job)
    store = Store.open(run.data.store)
    _check_built(run, store)
    scores = {"model": score(job)}
    if store.contents.label.per_pixel:
        scores["model"]["counting"] = BY_CHIP
    if here.rank():
        return scores
    folder = run.place / MAPS
    ours = []
    if store.contents.label.kind == "mask" and any(folder.glob("*.tif")):
        model = load_model(run.place)
        check_mappable(model.label, model.outputs)
        ours = maps_to_score(folder, store, fingerprint(model))
    if ours:
        scores["map"] = score_maps(ours, store, run.data.split)
        scores["map"]["counting"] = ONCE
        if scores["model"].get("other_store"):
            scores["map"] |= {"other_store": True, "share_touching": None}
            scores["map"].pop("share_same_object", None)
    for name in ("model", "map"):
        write_scores(run.place, name, scores.get(name))
    return scores


def _check_built(run: Run, store: Store) -> None:
    """Raise ConfigError if ``store`` is what the model of ``run`` was trained on, and ``run.build``
    would make another one: it is taken as it is."""
    from swath.data.build import differing
    from swath.train.export import read_about

    trained = read_about(run.place).trained
    if run.build is None or trained.store != store.fingerprint:
        return
    different = differing(store, run.build.dataset, run.build.split)
    if different:
        raise ConfigError(
            f"{store.path}: was built from other settings: {different}; a model is scored on the "
            "store as it is: set that back, or build another (data.store) and train on it"
        )


def baseline(run: Run) -> list[dict[str, Any]]:
    """Fit and score the run's baselines on the test part; write and return baselines.json."""
    from swath.baselines import fit_and_score
    from swath.files import write_json
    from swath.predict.evaluate import figures_plain
    from swath.report.compare import BASELINES

    one_process("baseline")
    if not run.baselines:
        raise ConfigError("there are no baselines; add some, as baselines: [{kind: forest}]")
    store = build(run, progress=False)
    rows = [
        figures_plain(
            fit_and_score(
                one,
                store,
                run.data.split,
                bands=run.data.bands,
                labels=run.data.labels,
                seed=run.seed,
                threads=run.compute.threads or here.cores(),
            )
        )
        for one in run.baselines
    ]
    run.place.mkdir(parents=True, exist_ok=True)
    write_json(run.place / BASELINES, rows)
    return rows


def compared(run: Run) -> list[Row]:
    """Return a row for the model and one for each baseline that was scored: name and figures.

    The model is scored by its map if there is one, so that, as with baselines on pixels, every
    held-out pixel counts once.
    """
    from swath.report import compare

    return compare.compared(run.place, None if run.model is None else kind_of(type(run.model)))


def comparison(run: Run) -> str:
    """Return the table of :func:`compared`, and what it has to be read with."""
    from swath.report.compare import table

    return table(compared(run))


def report(run: Run) -> pathlib.Path:
    """Write report.html, one page about the run folder that opens without a network."""
    from swath.report.compare import read_scores
    from swath.report.page import write

    one_process("report")
    if run.model is not None:
        check_trained(run.place, run)
    return write(
        run.place,
        name=run.name,
        settings=run,
        data=run.data,
        rows=compared(run),
        scores=read_scores(run.place),
        imagery=scene_of(run),
        precision=run.train.precision,
        compute=run.compute,
    )
