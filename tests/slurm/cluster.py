"""A real SLURM of several nodes on this computer, up in a second or two, for tests and by hand:

    python -m tests.slurm.cluster bash       # a shell in which sinfo, srun, sbatch and scancel work

The daemons are Debian's. They live in namespaces of their own (see ``init.sh``): several clusters
can be up side by side, nothing of them is seen outside, and they end with the process that started
them, however it ends, jobs and all. That takes Linux and root.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import pytest

NEEDED = ("slurmctld", "slurmd", "srun", "munged", "ip", "nsenter", "unshare", "setpriv")
PRIVATE = ("--net", "--uts", "--mount", "--pid")
UP_SECONDS = 60.0


class Cluster:
    """SLURM on nodes n1, n2 and so on, with ``cpus`` CPUs each in its book; a context manager.

    RuntimeError, with what the daemons said, if it does not come up.
    """

    def __init__(self, nodes: int = 4, cpus: int = 4) -> None:
        self.nodes = nodes
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm-"))
        """Configuration and logs of the daemons."""
        script = pathlib.Path(__file__).with_name("init.sh")
        with (self.folder / "said").open("wb") as said:
            # The kernel ends the cluster's first process with this one, and all others with that.
            apart = ["setpriv", "--pdeathsig", "KILL", "unshare", *PRIVATE]
            apart += ["--fork", "--mount-proc", "--kill-child"]
            self._process = subprocess.Popen(
                [*apart, "bash", str(script), str(nodes), str(cpus), str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        try:
            self._await()
        except BaseException:
            self.close()
            raise

    def _await(self) -> None:
        deadline = time.monotonic() + UP_SECONDS
        while not (self.folder / "up").exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "said").read_text()
                raise RuntimeError(f"SLURM did not come up: {said}{self.logs()}")
            time.sleep(0.02)

    def inside(self, command: Sequence[str], folder: str | pathlib.Path) -> list[str]:
        """Return the command that runs ``command`` in ``folder`` on the cluster's head node."""
        threads = pathlib.Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        first = threads.read_text().split()[0]
        # Entering the mounts leaves one in the root folder.
        enter = ["nsenter", "--target", first, *PRIVATE, "env", "-C", str(folder)]
        return [*enter, *command]

    def start(self, command: Sequence[str], folder: str | pathlib.Path) -> subprocess.Popen:
        """Return ``command``, running on the head node; what it says on stderr is kept."""
        return subprocess.Popen(
            self.inside(command, folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, *command: str) -> str:
        """Return what ``command`` prints on the head node; it must succeed."""
        done = subprocess.run(
            self.inside(command, self.folder), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def logs(self, lines: int = 20) -> str:
        """Return the last lines that each daemon wrote."""
        paths = sorted((self.folder / "log").glob("*"))
        texts = (path.read_text(errors="replace").splitlines()[-lines:] for path in paths)
        return "".join(
            f"\n== {path.name}\n" + "\n".join(text) for path, text in zip(paths, texts, strict=True)
        )

    def close(self) -> None:
        """End all of it; nothing is left but processes that could not be killed."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def lacking() -> str | None:
    """Return what keeps SLURM from being brought up here, None if nothing is known to."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "a virtual SLURM takes Linux and root"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not found; .ci/run installs what the tests want"
    alone = subprocess.run(["unshare", *PRIVATE, "--fork", "true"], capture_output=True, text=True)
    return alone.stderr.strip() or None if alone.returncode else None


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """A SLURM of four nodes, brought up once for all tests that want one."""
    if trouble := lacking():
        pytest.skip(trouble)
    with Cluster() as cluster:
        yield cluster


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a command beside a virtual SLURM cluster.")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--cpus", type=int, default=4, help="of each node, in SLURM's book")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if trouble := lacking():
        sys.exit(trouble)
    began = time.monotonic()
    with Cluster(options.nodes, options.cpus) as cluster:
        seconds = time.monotonic() - began
        print(f"{options.nodes} nodes up in {seconds:.1f} s; logs in {cluster.folder}/log")
        sys.exit(subprocess.call(cluster.inside(options.command or ["bash"], os.getcwd())))


if __name__ == "__main__":
    main()
