"""Facts about computers: each has a source, and they are those of the table that was read."""

import csv
import pathlib
import re
import subprocess
import sys
import textwrap

import pytest
from typer.testing import CliRunner

from swath import cli
from swath.config import ConfigError
from swath.machine import load_machine, machines

TABLE = {
    row["file"]: row
    for row in csv.DictReader((pathlib.Path(__file__).parent / "machines.csv").open())
}
COLUMNS = {
    "nodes": "nodes",
    "accelerators": "gpus_per_node",
    "accelerator.name": "gpu",
    "accelerator.memory_gb": "hbm_GB",
    "accelerator.memory_gb_per_s": "hbm_GBs",
    "accelerator.peak_tflops.bf16": "peak_bf16_tflops",
    "accelerator.peak_tflops.fp16": "peak_fp16_tflops",
    "accelerator.peak_tflops.tf32": "peak_tf32_tflops",
    "accelerator.peak_tflops.fp32": "peak_fp32_tflops",
    "accelerator.measured_tflops.bf16": "mamf_bf16_tflops",
    "accelerator.watts": "gpu_tdp_W",
    "links.inside_gb_per_s": "intra_GBs_per_gpu_dir",
    "links.pair_gb_per_s": "intra_pair_GBs_dir",
    "links.cards": "nics_per_node",
    "links.outside_gb_per_s": "nic_GBs_per_gpu_dir",
    "links.node_gb_per_s": "node_injection_GBs_dir",
    "links.network": "dfly_topology",
    "storage.name": "storage",
    "storage.read_gb_per_s": "storage_read_GBs",
}
"""Column of the table in which a fact stands."""

PAGE = pathlib.Path(__file__).parents[1] / "docs/howto/dry_run.md"
OWN = textwrap.dedent(re.search(r" *```yaml\n(.*?) *```", PAGE.read_text(), re.DOTALL)[1])


def test_every_row_of_the_table_is_a_machine():
    """A machine that was added later has no row: its figures stand in its file alone."""
    assert TABLE and set(TABLE) <= set(machines())


@pytest.mark.parametrize("name", TABLE)
def test_figures_are_those_of_the_table(name):
    """Where the table has two, as 50-200, the first: the slower link, the plain A100, flash."""
    known = dict(load_machine(name).facts())
    for fact, column in COLUMNS.items():
        cell = TABLE[name][column]
        if not cell:
            assert fact not in known, f"{fact} is not in the table"
        elif isinstance(known[fact], str):
            assert known[fact] == cell
        else:
            assert known[fact] == float(re.match(r"[\d.]+", cell)[0]), fact


@pytest.mark.parametrize("name", machines())
def test_every_figure_has_a_source(name):
    machine = load_machine(name)
    for fact, _ in machine.facts():
        assert len(machine.source(fact)) > 10, fact
    assert machine.about.endswith(".") and len(machine.about) < 110


def test_a_source_of_the_fact_itself_wins_over_that_of_its_part():
    jupiter = load_machine("jupiter")
    assert "JUPITER configuration" in jupiter.source("accelerator.memory_gb")
    assert "900 W" in jupiter.source("accelerator.measured_tflops.bf16")
    with pytest.raises(ConfigError, match=r"accelerator.memory is not known \(did you mean 'accel"):
        jupiter.source("accelerator.memory")


def test_a_file_of_ones_own_works_the_same(tmp_path):
    (tmp_path / "attic.yaml").write_text(OWN)
    attic = load_machine(tmp_path / "attic.yaml")
    assert (attic.accelerators, attic.accelerator.memory_gb, attic.nodes) == (2, 8, None)
    assert dict(attic.facts()) == {
        "accelerators": 2,
        "accelerator.name": "GTX 1080",
        "accelerator.memory_gb": 8,
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("accelerators: counted, ", ""),
            "accelerators has no source; say in sources.accelerators",
        ),
        (("the box}", "the box, links: x}"), "sources.links is of no fact; there are accelerators"),
        (("the box}", "the box, node: x}"), "sources.node is of no fact"),
        (("counted", '" "'), "sources.accelerators is empty"),
        (("accelerators: 2", "accelerators: 0"), "accelerators=0 must be at least 1"),
        (("about:", "# about:"), r"a machine needs 'about' \(.*; for whole ones see .*machines$"),
        (("memory_gb: 8", "memory: 8"), r"attic.yaml:5: accelerator.memory: .*'memory_gb'"),
    ],
)
def test_mistakes_in_a_machine_file(tmp_path, change, said):
    assert change[0] in OWN
    (tmp_path / "attic.yaml").write_text(OWN.replace(*change))
    with pytest.raises(ConfigError, match=said):
        load_machine(tmp_path / "attic.yaml")


def test_an_unknown_machine_is_an_error_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"no machine 'juwels' \(did you mean 'juwels_booster'\?"):
        load_machine("juwels")
    with pytest.raises(
        ConfigError, match=f"no machine 'xyz'; there are {', '.join(machines()[:9])}"
    ):
        load_machine("xyz")


def test_machines_are_listed_with_a_sentence_each():
    lines = CliRunner().invoke(cli.app, ["show", "--machines"]).output.splitlines()
    assert [line.split()[0] for line in lines] == machines()
    assert all(line.endswith(".") for line in lines)


def test_machines_need_no_torch():
    """A plan for a computer is made where there is none of it, and at once."""
    code = "import sys, swath.machine as m; m.load_machine('frontier'); assert 'torch' not in "
    subprocess.run([sys.executable, "-c", code + "sys.modules"], check=True, timeout=60)
