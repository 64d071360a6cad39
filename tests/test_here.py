"""What launchers say about a process, and what a person reads on stderr."""

import io
import logging
import os
import pathlib
import re

import pytest

from swath import here, log
from swath.config import ConfigError

NAMES = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "SLURM_PROCID", "SLURM_NTASKS",
    "SLURM_LOCALID", "SLURM_CPUS_PER_TASK", "SLURM_STEP_NUM_TASKS",
)  # fmt: skip


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    """Start each test without a launcher's variables."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_alone():
    assert (here.rank(), here.ranks(), here.local_rank()) == (0, 1, 0)


def test_torchrun_and_srun(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "node1")
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert (here.rank(), here.ranks(), here.local_rank()) == (5, 8, 1)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name)
    slurm = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "2"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    assert (here.rank(), here.ranks(), here.local_rank()) == (3, 4, 2)


def test_a_lone_process_in_an_allocation_is_alone(monkeypatch):
    """Without a meeting point it would wait for ever for the others."""
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert (here.rank(), here.ranks()) == (0, 1)


def test_a_variable_that_is_no_number(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "node1")
    monkeypatch.setenv("WORLD_SIZE", "four")
    with pytest.raises(ConfigError, match="WORLD_SIZE='four' is not a number; unset it, or start"):
        here.ranks()


def test_cores_are_the_least_of_what_is_allowed(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(here, "_container_cores", lambda: None)
    assert here.cores() == 16
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    assert here.cores() == 6
    monkeypatch.setattr(here, "_container_cores", lambda: 3)
    assert here.cores() == 3


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", None), ("250000 100000", 2), ("50000 100000", 1)]
)
def test_a_containers_quota(tmp_path, text, cores):
    (tmp_path / "cpu.max").write_text(text)
    assert here._container_cores(str(tmp_path / "cpu.max")) == cores
    assert here._container_cores(str(tmp_path / "none")) is None


def test_processes_that_cannot_meet_are_several_all_the_same(monkeypatch):
    """Tasks of srun without a meeting point are worlds of one each, beside one another."""
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    assert here.processes() == 1
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "3")
    assert (here.ranks(), here.processes()) == (1, 3)
    monkeypatch.setenv("MASTER_ADDR", "x")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert here.processes() == 8


def test_only_here_reads_environment_variables():
    """So that a setting cannot come from somewhere that no one sees."""
    source = pathlib.Path(here.__file__).parent
    readers = [
        file.relative_to(source).as_posix()
        for file in source.rglob("*.py")
        if re.search(r"\bos\.environ\b|\bgetenv\b", file.read_text())
    ]
    assert readers == ["here.py"]


@pytest.fixture
def quiet_after():
    yield
    logger = logging.getLogger("swath")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.propagate, _ = True, logger.setLevel(logging.NOTSET)


def said(quiet_after, **settings) -> list[str]:
    """Return what is shown, without the time."""
    stream = io.StringIO()
    log.start(stream=stream, **settings)
    logger = logging.getLogger("swath.data.store")
    logger.debug("opened %s", "a")
    logger.info("100%% of %d chips", 3)
    logger.warning("no classes")
    return [line[9:] for line in stream.getvalue().splitlines()]


def test_lines_for_a_person(quiet_after):
    assert said(quiet_after) == ["100% of 3 chips", "warning: no classes"]


def test_of_many_processes_the_first_speaks(quiet_after):
    assert said(quiet_after, rank=0, ranks=2) == ["[0] 100% of 3 chips", "[0] warning: no classes"]
    assert said(quiet_after, rank=1, ranks=2) == ["[1] warning: no classes"]
