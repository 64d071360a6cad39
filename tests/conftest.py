"""What all tests share: shapes checked against signatures, few threads, no windows."""

import os

from jaxtyping import install_import_hook

# Before anything of swath.nn is imported: every call checks the shapes that its signature states.
install_import_hook("swath.nn", "beartype.beartype")

os.environ.setdefault("MPLBACKEND", "Agg")
# Small tensors run slower on many threads, and slower still where other tests run beside them.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")


def pytest_collection_modifyitems(items):
    """Files whose tests start processes come first: they take longest, and short ones fill up what
    is left of the time."""
    start = {"ranks", "alone", "slurm"}
    long = {item.path for item in items if not start.isdisjoint(item.fixturenames)}
    items.sort(key=lambda item: item.path not in long)


# Fixtures; after the hook is installed.
from tests.lab import inside, lab, trained  # noqa: E402, F401
from tests.parallel.commands import alone  # noqa: E402, F401
from tests.ranks import ranks  # noqa: E402, F401
from tests.slurm.cluster import slurm  # noqa: E402, F401
