"""What the page says of speed is what was recorded and profiled."""

from swath.report.page import render
from swath.report.speed import profiles, use
from swath.train.trace import Row, Times


def test_the_use_of_the_machine_in_sentences():
    starts = [
        {
            "update": 0,
            "ranks": 2,
            "peak_flops_per_s": 312e12,
            "peak_from": "somewhere: bf16 (a table)",
        }
    ]
    records = [
        {
            "update": 1,
            "mfu": share,
            "memory_bytes": 3 << 30,
            "sent_bytes": 5 << 20,
            "exchange_wait": 0.1,
        }
        for share in (0.1, 0.42, 0.43)
    ]
    said = use([{"update": 1, "val/oa": 0.5}, *records], starts)
    assert "utilisation 0.42 (median) of 312 TFLOP/s a rank, somewhere: bf16 (a table)." in said
    assert "At most 3.0 GiB of memory on a rank. 2 ranks, each sent 5.0 MiB an update" in said
    assert "waited for exchanges 10% of the time." in said
    assert use([{"update": 1, "loss": 2.0}], []) == ""


def test_a_share_is_told_with_the_peak_that_it_is_a_share_of():
    """Of three starts the last has no line yet, as when it was stopped at once."""
    starts = [
        {"update": at, "ranks": 1, "peak_flops_per_s": peak, "peak_from": f"start {at}"}
        for at, peak in ((0, 100e12), (4, 300e12), (6, 400e12))
    ]
    records = [{"update": i, "mfu": 0.5 if i < 5 else 0.1} for i in range(1, 7)]
    assert "0.1 (median since update 4) of 300 TFLOP/s a rank, start 4." in use(records, starts)
    assert "0.5 (median) of 100 TFLOP/s a rank, start 0." in use(records[:4], starts)


def test_the_page_shows_where_the_time_went(tmp_path):
    (tmp_path / "profile").mkdir()
    ranges = (Row("forward", 4, 0.5, 1.0), Row("other", 0, 1.5))
    for update, rank in ((12, 0), (10, 1), (10, 0)):
        times = Times(update, rank, 2.0, ranges, (), gpu_busy=1.5, exposed=0.2)
        (tmp_path / f"profile/rank{rank}.{update}.json").write_text(times.as_json())
    (tmp_path / "profile/rank9.1.json").write_text("{")
    found = profiles(tmp_path)
    assert [table["title"][:20] for table in found] == [
        "Update 10 on rank 0:", "Update 10 on rank 1:", "Update 12 on rank 0:"
    ]  # fmt: skip
    assert found[0]["title"].endswith("2.0 s; the GPU at work 75% of it, only exchanging 10%")
    assert found[0]["rows"][0] == {
        "cells": ["forward", "4", "0.5000", "25.0%", "1.0000"],
        "bar": 25.0,
    }
    page = render({"name": "run", "profiles": found})
    assert "Where the time went" in page and "width: 25.0%;" in page
    assert "Where the time went" not in render({"name": "run", "profiles": []})
