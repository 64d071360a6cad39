"""The ending of a proof: what is printed, what is written, and the exit code."""

import re

import pytest

from swath.report.seeds import mean_sd, prove

ABOUT = "The proof of a claim.\n\nMore of it.\n"


def proof(folder, capsys, words=(), good=0.6):
    """Run a made-up proof; return its exit code, what it printed, and what it was asked for."""
    asked = []

    def one_seed(seed, words):
        asked.append((seed, words))
        return {"unet": {"oa": good + seed / 10}, "forest": {"oa": 0.65}}

    def claim(seeds):
        ours, best = (mean_sd(seeds, name, "oa")[0] for name in ("unet", "forest"))
        return ours > best, f"{ours:.2f} against {best:.2f}."

    with pytest.raises(SystemExit) as left:
        prove(str(folder / "check.py"), ABOUT, one_seed, claim, words)
    return left.value.code, capsys.readouterr(), asked


def test_a_claim_that_holds_is_written_down(tmp_path, capsys):
    code, said, asked = proof(tmp_path, capsys)
    assert code == 0 and [seed for seed, _ in asked] == [0, 1, 2]
    assert re.fullmatch(
        r"0\.70 against 0\.65\.\n\nMeasured by check\.py in 0\.0 minutes\.\n", said.out
    )
    assert (tmp_path / "results.md").read_text() == f"# Results\n\n{said.out}"


def test_a_claim_that_does_not_hold_is_an_exit_code_and_written_down_too(tmp_path, capsys):
    """A string is what sys.exit prints on stderr before it leaves with 1."""
    code, said, _ = proof(tmp_path, capsys, good=0.5)
    assert code == "check.py: the claim does not hold"
    assert "0.60 against 0.65." in said.out
    assert (tmp_path / "results.md").read_text() == f"# Results\n\n{said.out}"


@pytest.mark.parametrize("words", [["train.samples=8"], ["--seeds", "2"]])
def test_another_experiment_does_not_replace_the_results(tmp_path, capsys, words):
    (tmp_path / "results.md").write_text("before")
    code, said, asked = proof(tmp_path, capsys, words, good=0.7)
    assert code == 0 and (tmp_path / "results.md").read_text() == "before"
    assert "results.md stays as it was: this was another experiment (" in said.err
    assert " ".join(words) in said.err
    assert asked[0][1] == [word for word in words if "=" in word]


def test_no_seed_is_no_proof(tmp_path, capsys):
    code, said, asked = proof(tmp_path, capsys, ["--seeds", "0"])
    assert code == 2 and "at least one is needed" in said.err and not asked


def test_mean_and_deviation_over_seeds():
    """The deviation of a sample, with one less than there are."""
    seeds = [{"a": {"oa": value}} for value in (0.1, 0.2, 0.6)]
    assert mean_sd(seeds, "a", "oa") == pytest.approx((0.3, 0.07**0.5))
    assert mean_sd(seeds[:1], "a", "oa") == (0.1, 0.0)
