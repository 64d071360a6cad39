"""Verbs on stores and on the files that they are made from: swath data ..."""

from typing import Annotated, Literal

import typer

from swath.cli.words import Settings, chosen_by


def build(settings: Settings = None) -> None:
    """Build the store data.store from the files that build.dataset describes.

    A store that is there is left as it is; interrupted, the same command goes on. Prints its path.

    Example: swath data build mine.yaml data.store=stores/another build.dataset.chip=128
    """
    from swath import run

    print(run.build(chosen_by("data build", settings)).path)


def find(settings: Settings = None) -> None:
    """List the items of a STAC catalogue that the settings ask for: name, date, cloud, size.

    Nothing is fetched. build.dataset is of kind stac: see docs/howto/gather.md.

    Example: swath data find found.yaml build.dataset.cloud_cover=5
    """
    from swath import run

    for line in run.find(chosen_by("data find", settings)):
        print(line)


def fetch(settings: Settings = None) -> None:
    """Fetch the files that swath data find tells, as swath data build does before it cuts them.

    They go to build.dataset.folder, and what is there already is left. Prints the folder.

    Example: swath data fetch found.yaml build.dataset.most=2
    """
    from swath import run

    print(run.fetch(chosen_by("data fetch", settings)))


def show(
    settings: Settings = None,
    samples: Annotated[int, typer.Option(help="chips to draw")] = 12,
    part: Annotated[Literal["train", "val", "test"], typer.Option(help="of the split")] = "train",
) -> None:
    """Draw chips with their labels, and the split on the ground, as PNG beside the store.

    Builds the store first, or goes on building it, if the settings say how and it is not there.

    Example: swath data show mine.yaml --samples 24 --part test
    """
    from swath import run

    for path in run.pictures(chosen_by("data show", settings), samples, part):
        print(path)


def stats(settings: Settings = None) -> None:
    """Print the store's samples and classes per part, no-data share and band statistics.

    Builds the store first, or goes on building it, if the settings say how and it is not there.

    Example: swath data stats stores/mine
    """
    from swath import run

    run.statistics(chosen_by("data stats", settings))
