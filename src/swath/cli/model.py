"""Verbs that make a model, score it and map a scene with it."""

import json
import logging
from typing import TYPE_CHECKING, Annotated

import typer

from swath import here, machine
from swath.cli.words import Ranks, Settings, chosen_by, in_ranks
from swath.config import ConfigError
from swath.parallel import launch

if TYPE_CHECKING:
    from swath.settings import Run

log = logging.getLogger(__name__)


def train(
    settings: Settings = None,
    ranks: Annotated[
        int | None,
        typer.Option(
            help="processes to start on this computer (default: 1); torchrun and srun start their "
            "own. With --dry-run: ranks to lay out, any number (default: as few as parallel "
            "allows)",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="train nothing: print how the run would lie on --ranks"),
    ] = False,
    machine_: Annotated[
        str,
        typer.Option(
            "--machine",
            help="with --dry-run: a name of swath show --machines, or a YAML file; default: "
            "compute.machine",
            show_default=False,
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="with --dry-run: print JSON")] = False,
) -> None:
    """Train a model; in a run folder that exists, go on where it stopped.

    Builds the store first if the settings say how and it is not there. Writes model.safetensors,
    metrics.jsonl and checkpoints to the run folder (default: runs/NAME). SIGTERM and SIGUSR1 save
    and leave with exit code 75; the same command then continues the same curve.

    With --dry-run nothing is built or trained: memory of each rank, exchanges and updates are
    printed, for any number of ranks, on this one process.

    Examples: swath train mine.yaml name=second seed=1

    swath train mine.yaml --dry-run --ranks 64 --machine juwels_booster
    """
    from swath import run

    chosen = run.load(*settings or [])
    if dry_run:
        _dry_run(chosen, ranks, machine_, as_json)
        return
    if machine_ or as_json:
        raise ConfigError(
            f"{'--machine' if machine_ else '--json'} has no effect without --dry-run, which "
            "prints how a run would lie on ranks"
        )
    if ranks is not None and ranks != 1:
        launch.check(ranks)
        run.prepare(chosen)  # several processes could not build
        in_ranks("train", settings, ranks, chosen)
    figures = run.train(chosen)
    if not here.rank():
        print(run.after_training(chosen, figures))


def _dry_run(chosen: "Run", ranks: int | None, name: str, as_json: bool) -> None:
    """Print how ``chosen`` would lie on ``ranks`` ranks; of the machine ``name``, if any."""
    from swath import run

    if ranks is None:
        ranks = chosen.parallel.fixed
        count = "1 rank" if ranks == 1 else f"{ranks} ranks"
        log.info("laying out %s, as few as parallel allows; --ranks says how many", count)
    name = name or chosen.compute.machine or ""
    there = machine.load_machine(name) if name else None
    layout = run.dry_run(chosen, ranks)
    from swath.train.dry_text import plain, words

    print(json.dumps(plain(layout, there), indent=1) if as_json else words(layout, there))


def export(
    settings: Settings = None,
    names: Annotated[
        str | None, typer.Option(help="for other programs: timm, or hf (Hugging Face)")
    ] = None,
) -> None:
    """Write the model of a run that has not come to its end, the best so far, to its folder.

    That is the model of the best evaluation, or of the newest checkpoint if nothing was evaluated.
    swath train still goes on with the run, and writes the model of the end in its place.

    With --names the model that the run has is written by the names of other programs:
    timm.safetensors, or the folder hf, which transformers opens.

    Example: swath export runs/NAME --names hf
    """
    from swath import run

    chosen = chosen_by("export", settings)
    print(run.export(chosen) if names is None else run.export_for(chosen, names))


def evaluate(settings: Settings = None, ranks: Ranks = 1) -> None:
    """Score the trained model, and its map if there is one, on the held-out part.

    Prints the figures, of a map also accuracies and areas of each class and its confusion, and
    leaves them in the run folder as scores.json. What they mean: docs/howto/scores.md.

    Example: swath evaluate runs/NAME
    """
    from swath import run
    from swath.report.classes import table
    from swath.tasks import figure

    chosen = chosen_by("evaluate", settings)
    if ranks != 1:
        in_ranks("evaluate", settings, ranks, chosen)
    scores = run.evaluate(chosen)
    if here.rank():
        return
    for what, figures in scores.items():
        counting = f" ({figures['counting']})" if "counting" in figures else ""
        print(f"{what}, on the held-out part{counting}:")
        for name, value in figures.items():
            if isinstance(value, int | float):
                told = f"{value:.4f}" if isinstance(value, float) else value
                doubt = figure(name).doubt(value)
                print(f"  {name:<24} {told}{'  ' if doubt else ''}{doubt}")
        if "confusion" in figures:
            print(f"\n{table(figures)}")


def predict(settings: Settings = None, ranks: Ranks = 1) -> None:
    """Map a scene with the trained model: a Cloud-Optimised GeoTIFF in the run folder's map/.

    Without predict.scene, the scene that the store was built from. Interrupted, the same command
    goes on at the next strip.

    Example: swath predict runs/NAME "predict.scene={path: data/other, sensor: sentinel2_l2a}"
    """
    from swath import run

    chosen = chosen_by("predict", settings)
    if ranks != 1:
        in_ranks("predict", settings, ranks, chosen)
    made = run.predict(chosen)
    if not here.rank():
        print(made)
