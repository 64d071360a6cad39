"""Four nodes of a real SLURM train as one process does, and end well."""

import pathlib
import re
import time

from tests.parallel.commands import SWATH, same_curve, updates

PAGE = pathlib.Path(__file__).parents[2] / "docs/howto/launch.md"
FOUR = ["--nodes=4", "--ntasks-per-node=1"]


def printed(start: str) -> str:
    """Return the script of the page that begins with ``start``."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (found,) = [block for block in blocks if block.startswith(start)]
    return found


def finished(slurm, job: str, seconds: float) -> str:
    """Return the exit code that SLURM has noted for ``job``, once it has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        told = slurm.ask("scontrol", "--oneliner", "show", "job", job)
        if not re.search(r"JobState=(PENDING|RUNNING|COMPLETING)", told):
            return re.search(r"ExitCode=(\S+)", told)[1]
        time.sleep(0.1)
    raise AssertionError(f"job {job} has not ended: {told}")


def reached(folder: pathlib.Path, name: str, number: int, seconds: float = 100) -> None:
    deadline = time.monotonic() + seconds
    while updates(folder, name) < number:
        assert time.monotonic() < deadline, f"run {name} has not come to update {number}"
        time.sleep(0.02)


def test_srun_on_four_nodes_gives_the_curve_of_one_process(slurm, alone):
    """Nothing is exported: the nodes find one another by what SLURM tells them."""
    with slurm.start(["srun", *FOUR, *SWATH, "name=srun"], alone) as running:
        said = running.communicate(timeout=240)[1]
    assert running.returncode == 0, said
    same_curve(alone, "srun")


def test_the_job_script_goes_on_after_a_kill_and_leaves_when_time_is_up(slurm, alone):
    """As printed on the page, with other numbers. A rank is killed, as by a system out of memory;
    the script tries again; then SIGUSR1 comes as --signal sends it, to the step alone."""
    script = printed("#!/bin/bash")
    script, count = re.subn(r"(#SBATCH --nodes).*", f"#SBATCH {' '.join(FOUR)}", script)
    assert count == 1
    script = script.replace("swath train recipe.yaml", " ".join([*SWATH, "name=job"]))
    assert "name=job" in script
    (alone / "job.sh").write_text(script)
    job = slurm.ask(
        "sbatch", "--parsable", "-D", str(alone), "-o", "job.out", str(alone / "job.sh")
    )
    job = job.strip()

    reached(alone, "job", 12)
    (victim,) = tasks(slurm, 2)
    slurm.ask("kill", "-KILL", str(victim))
    reached(alone, "job", updates(alone, "job") + 4)
    slurm.ask("scancel", "--signal=USR1", job)
    assert finished(slurm, job, 120) == "75:0", (alone / "job.out").read_text()

    said = [line for line in (alone / "job.out").read_text().splitlines() if "swath: " in line]
    assert len(said) == 2, said
    assert re.match(rf"swath: rank 2 \(n3 pid {victim}\) is lost.* the same command goes", said[0])
    assert re.match(r"swath: (another rank|SIGUSR1): saved after update \d+; the same", said[1])
    with slurm.start(["srun", *FOUR, *SWATH, "name=job"], alone) as running:
        assert running.wait(120) == 0, running.stderr.read()
    same_curve(alone, "job")


def tasks(slurm, rank: int) -> list[int]:
    """Return the process that is task ``rank``, by its number inside the cluster."""
    script = f"grep -slzx SLURM_PROCID={rank} /proc/[0-9]*/environ || true"
    return [int(path.split("/")[2]) for path in slurm.ask("bash", "-c", script).split()]


def test_a_task_that_never_begins_is_ended_too(slurm, alone):
    """Its node hangs, say: the others leave after the time that was set, and srun must not wait
    for it longer than it was told to."""
    late = f"[ $SLURM_PROCID = 1 ] && sleep 600; exec {' '.join(SWATH)} name=late"
    began = time.monotonic()
    ask = ["srun", "--kill-on-bad-exit=0", "--wait=2", "--nodes=2"]
    command = [*ask, "bash", "-c", f"{late} parallel.start_seconds=3"]
    with slurm.start(command, alone) as running:
        said = running.communicate(timeout=100)[1]
    assert running.returncode == 137 and time.monotonic() - began < 90
    lines = [line for line in said.splitlines() if line.startswith("swath: ")]
    assert len(lines) == 1 and lines[0].startswith("swath: of 2 ranks rank 1 did not come within")
    assert "there are rank 0 on n1" in lines[0]
