"""Whether weights fit the networks that they are to begin: told before anything is measured.

Of a long comparison the last task may be the one whose network they do not fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from swath.assess.cells import Cell
from swath.assess.plan import Plan
from swath.config import ConfigError
from swath.train.begin import matched
from swath.train.describe import describe


def check_weights(plan: Plan, missing: Sequence[Cell]) -> None:
    """Raise ConfigError, naming task and model, if given weights do not fit the network of one of
    the ``missing`` cells. Values are not read, but for the file's checksum."""
    seen = set()
    for cell in missing:
        init = plan.weights.get((cell.model, cell.seed))
        run = plan.run(cell, plan.tries(cell)[0])
        key = (cell.task, cell.model, run.model)
        if init is None or key in seen:
            continue
        seen.add(key)
        job = dataclasses.replace(run, adapt=None).job()
        try:
            matched(init, describe(job, job.open()))
        except ConfigError as error:
            raise ConfigError(f"tasks.{cell.task}, models.{cell.model}: {error}") from error
