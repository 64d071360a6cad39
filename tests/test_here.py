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
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID",
    "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_CPUS_PER_TASK", "SLURM_STEP_NUM_TASKS", "SLURM_JOB_ID",
    "SLURM_STEP_ID", "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST",
    "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_USE_AGENT_STORE",
)  # fmt: skip

TASK = {
    "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_JOB_NODELIST": "jwb[0001-0004]",
    "SLURM_STEP_NODELIST": "jwb[0002-0003]",
}  # fmt: skip
"""What srun says to one of the four tasks of a step on two of the job's four nodes."""


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    """Start each test without a launcher's variables."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_alone():
    assert (here.rank(), here.ranks(), here.local_rank()) == (0, 1, 0)


def say(monkeypatch, told: dict[str, str]) -> None:
    for name, value in told.items():
        monkeypatch.setenv(name, value)


def test_torchrun(monkeypatch):
    told = {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "n",
        "MASTER_PORT": "7",
    }
    say(monkeypatch, {**told, "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "x"})
    assert (here.rank(), here.ranks(), here.local_rank()) == (5, 8, 1)
    assert here.meeting_point() == here.MeetingPoint("n", 7, True, "x")


def test_torchrun_inside_a_task_of_srun(monkeypatch):
    """As on several nodes: srun starts one torchrun on each, torchrun the ranks."""
    say(monkeypatch, TASK)
    say(monkeypatch, {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "2", "MASTER_ADDR": "n"})
    assert (here.rank(), here.ranks(), here.local_rank()) == (5, 8, 2)


def test_srun_needs_no_export(monkeypatch):
    """The first node of the step, not of the job, and a port that other jobs do not take."""
    say(monkeypatch, TASK)
    assert (here.rank(), here.ranks(), here.local_rank()) == (3, 4, 1)
    point = here.meeting_point()
    assert (point.host, point.kept, point.job) == ("jwb0002", False, "4711/0")
    assert 10_000 <= point.port < 30_000
    assert here.meeting_point() == point, "all tasks have to come to the same port"
    ports = set()
    for step in range(20):
        monkeypatch.setenv("SLURM_STEP_ID", str(step))
        ports.add(here.meeting_point().port)
    assert len(ports) == 20, "steps of one job may run side by side"


def test_what_is_exported_wins_over_srun(monkeypatch):
    say(monkeypatch, {**TASK, "MASTER_ADDR": "jwb0002i", "MASTER_PORT": "6000"})
    assert (here.rank(), here.ranks()) == (3, 4)
    point = here.meeting_point()
    assert (point.host, point.port) == ("jwb0002i", 6000)


def test_tasks_without_a_node_list_are_told_what_to_export(monkeypatch):
    say(monkeypatch, {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1"})
    with pytest.raises(ConfigError, match="4 tasks of srun cannot find one another: neither"):
        here.meeting_point()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node1", "node1"),
        ("node[01-04,07],login1", "node01 node02 node03 node04 node07 login1"),
        ("n[9-11]", "n9 n10 n11"),
        ("a[0-1]b[3,5]", "a0b3 a0b5 a1b3 a1b5"),
        ("rack-1.n[001-002],x", "rack-1.n001 rack-1.n002 x"),
    ],
)
def test_a_node_list(text, names):
    assert here.nodes(text) == names.split()


@pytest.mark.parametrize("text", ["", "n[1-2", "n[a-b]", "n[]", "n[1-],m", "a,,b", "a b"])
def test_what_is_no_node_list(text):
    with pytest.raises(ConfigError, match=r"is no list of nodes, such as node\[01-04,07\]"):
        here.nodes(text)


def test_a_lone_process_in_an_allocation_is_alone(monkeypatch):
    """Of a job script's variables those of a step are missing; it would wait for ever."""
    say(monkeypatch, {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_NODELIST": "n[1-4]"})
    assert (here.rank(), here.ranks()) == (0, 1)
    monkeypatch.setenv("MASTER_ADDR", "n1")
    assert (here.rank(), here.ranks()) == (0, 1)


@pytest.mark.parametrize("rank", [None, "4", "-1"])
def test_several_processes_that_are_not_numbered(monkeypatch, rank):
    say(monkeypatch, {"WORLD_SIZE": "4", "MASTER_ADDR": "n"} | ({"RANK": rank} if rank else {}))
    with pytest.raises(ConfigError, match="neither RANK nor SLURM_PROCID says which of 0 to 3"):
        here.rank()


def test_a_child_is_told_where_to_go(monkeypatch):
    """It reads what torchrun would say, and shares the cores."""
    say(monkeypatch, TASK)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(here, "cores", lambda: 7)
    told = here.child(1, 3, 6000)
    assert told["OMP_NUM_THREADS"] == "2"
    say(monkeypatch, told)
    assert (here.rank(), here.ranks(), here.local_rank()) == (1, 3, 1)
    assert here.meeting_point() == here.MeetingPoint("127.0.0.1", 6000, True, here.job())
    assert here.child(0, 3, 6000)["OMP_NUM_THREADS"] == "2", "what the user set stays"


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


def test_launchers_side_by_side_are_several_processes(monkeypatch):
    """Each of three tasks of srun has a world of its own; they would write the same files."""
    assert here.processes() == 1
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "3")
    assert (here.ranks(), here.processes()) == (3, 3)
    say(monkeypatch, {"MASTER_ADDR": "x", "WORLD_SIZE": "1", "RANK": "0"})
    assert (here.ranks(), here.processes()) == (1, 3)
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
