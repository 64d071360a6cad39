"""What all tests share: shapes checked against signatures, few threads, no windows."""

import os

from jaxtyping import install_import_hook

# Before anything of swath.nn is imported: every call checks the shapes that its signature states.
install_import_hook("swath.nn", "beartype.beartype")

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "2")  # small tensors run slower on many threads

# Fixtures; after the hook is installed.
from tests.lab import inside, lab, trained  # noqa: E402, F401
from tests.parallel.commands import alone  # noqa: E402, F401
from tests.ranks import ranks  # noqa: E402, F401
from tests.slurm.cluster import slurm  # noqa: E402, F401
