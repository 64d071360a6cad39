"""Verbs on stores and on the files that they are made from: swath data ..."""

from typing import Annotated, Literal

import typer

from swath.cli.words import Settings, chosen_by


def build(settings: Settings = None) -> None:
    """Build the store that the settings describe; interrupted, go on where it stopped."""
    from swath import run

    print(run.build(chosen_by("data build", settings)).path)


def find(settings: Settings = None) -> None:
    """List the items of a STAC catalogue that the settings ask for: name, date, cloud, size."""
    from swath import run

    for line in run.find(chosen_by("data find", settings)):
        print(line)


def fetch(settings: Settings = None) -> None:
    """Fetch the files of those items to a folder, as `swath data build` does before it cuts them;
    what is there already is left."""
    from swath import run

    print(run.fetch(chosen_by("data fetch", settings)))


def show(
    settings: Settings = None,
    samples: Annotated[int, typer.Option(help="chips to draw")] = 12,
    part: Annotated[Literal["train", "val", "test"], typer.Option(help="of the split")] = "train",
) -> None:
    """Draw chips with their labels, and the split on the ground, as PNG beside the store."""
    from swath import run

    for path in run.pictures(chosen_by("data show", settings), samples, part):
        print(path)


def stats(settings: Settings = None) -> None:
    """Print the store's classes per part, no-data share and band statistics."""
    from swath import run

    run.statistics(chosen_by("data stats", settings))
