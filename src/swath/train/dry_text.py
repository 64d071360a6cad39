"""A layout in words for a person, and as plain values for a script; against a machine, if one is
named."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from swath import units
from swath.machine import Machine
from swath.parallel.dry import Held, Traffic
from swath.parallel.settings import DEGREES, Degrees
from swath.train.dry import Layout

_TIGHT = 0.9
_ROWS = 12
"""Parameters in the table."""
_NAMES = {"average": "moving average", "gathered": "gathered parameters"}


@dataclass(frozen=True)
class Spread:
    """How the ranks of a group lie on nodes, and what an exchange among them puts on links."""

    nodes: int
    inside: float
    """Bytes that a rank sends within its node."""
    outside: float
    """Bytes that all ranks of a node send to other nodes."""


def spread(row: Traffic, rank: int, each: int) -> Spread:
    """Return where the bytes of ``row`` go, with ``each`` ranks on a node.

    In a ring of ranks in order one rank of every node passes its bytes on to the next node; of each
    kind of group a node has as many as its ranks need.
    """
    nodes = {member // each for member in row.members}
    own = [member for member in row.members if member // each == rank // each]
    if len(nodes) == 1:
        return Spread(1, row.wire, 0.0)
    passed_on = row.wire * (len(own) - 1) / len(own)
    return Spread(len(nodes), passed_on, row.wire * each / len(own))


def words(layout: Layout, machine: Machine | None = None) -> str:
    """Return the layout as text of about 40 lines."""
    parts = [_head(layout), _memory(layout, machine), _places(layout, machine)]
    parts += [_traffic(layout, machine), _parameters(layout), _updates(layout)]
    return "\n\n".join(part for part in parts if part)


def plain(layout: Layout, machine: Machine | None = None) -> dict[str, Any]:
    """Return the layout as JSON can hold it; bytes, not GiB."""
    found: dict[str, Any] = {
        "ranks": layout.ranks,
        "degrees": dataclasses.asdict(layout.degrees),
        "parameters": layout.parameters,
        "precision": layout.precision,
        "device": layout.device,
        "inputs": list(layout.inputs),
        "stores": layout.stores,
        "samples": layout.samples,
        "micro": layout.micro,
        "microbatches": {"fewest": layout.microbatches[0], "most": layout.microbatches[1]},
        "updates": layout.updates,
        "largest": layout.largest.rank,
        "shares": [],
    }
    if machine is not None:
        need, room = layout.largest.memory.total, memory_bytes(machine)
        found["machine"] = {
            "name": machine.name,
            "nodes": -(-layout.ranks // machine.accelerators),
            "memory": room,
            "fits": need <= room,
            "advice": [] if need <= room else advice(layout, room),
        }
    for share in layout.shares:
        rows = []
        for row in share.traffic:
            told = {"kind": row.kind, "axes": list(row.axes), "ranks": len(row.members)}
            told |= {"calls": row.calls, "bytes": row.bytes, "wire": row.wire}
            if machine is not None:
                told |= dataclasses.asdict(spread(row, share.rank, machine.accelerators))
            rows.append(told)
        memory = {**dataclasses.asdict(share.memory), "total": share.memory.total}
        held = [dataclasses.asdict(one) for one in share.held]
        found["shares"].append(
            {"rank": share.rank, "at": share.at, "memory": memory, "held": held, "traffic": rows}
        )
    return found


def memory_bytes(machine: Machine) -> int:
    """Return the bytes of one accelerator."""
    return round(machine.accelerator.memory_gb * 1e9)


def advice(layout: Layout, room: int) -> list[str]:
    """Return what to change so that the largest rank takes less than ``room`` bytes; first what
    could help most."""
    memory, degrees = layout.largest.memory, layout.degrees
    share, many = degrees.shard, layout.microbatches[1]
    state = memory.parameters + memory.gradients + memory.optimiser + memory.average
    state += memory.teacher
    found: list[tuple[int, str]] = []
    wide = "; parallel.tensor or pipeline, where the model can be cut, share them as well"
    more = f"parallel.shard={2 * share} or more would share"
    what = "parameters, gradients and optimiser" + (", average" if memory.average else "")
    what += ", teacher" if memory.teacher else ""
    found.append((state, f"{what} take {units.bytes_(state)}: {more} them{wide}"))
    if share > 1 and many > 1 and memory.gradients > memory.parameters:
        found.append(
            (
                memory.gradients,
                "gradients are whole from microbatch to microbatch"
                f" ({units.bytes_(memory.gradients)}): with one microbatch a rank,"
                f" not {many}, they are not; more ranks, or batch.micro"
                " larger",
            )
        )
    fewer = [f"batch.micro below {layout.micro}"] if layout.micro > 1 else []
    fewer += ["parallel.recompute=full"] if layout.recompute != "full" else []
    fewer += ["parallel.context or spatial above 1, where the model allows it"]
    active = f"activations take {units.bytes_(memory.activations)}; of help: {', '.join(fewer)}"
    found.append((memory.activations, active))
    if memory.gathered > room // 4:
        found.append((memory.gathered, "parallel.wrap=matrix gathers one layer at a time"))
    found.sort(key=lambda one: -one[0])
    return [text for size, text in found if size > memory.total // 5]


def _head(layout: Layout) -> str:
    bands, side, _ = layout.inputs
    kind = "a GPU" if layout.device == "gpu" else "a CPU"
    ranks, parameters = units.count(layout.ranks), units.count(layout.parameters)
    of = f" (of {layout.stores} stores the one that needs most)" if layout.stores > 1 else ""
    return (
        f"{ranks} ranks, {_degrees(layout.degrees)}: {parameters} parameters, {layout.precision},"
        f" samples of {bands} bands and {side} x {side} px{of}, each rank on {kind}"
    )


def _memory(layout: Layout, machine: Machine | None) -> str:
    largest = layout.largest
    where = f"rank {largest.rank}" + "".join(f", {axis} {n}" for axis, n in largest.at.items())
    lines = [f"memory at the peak of an update, of the rank that needs most ({where}):"]
    for name, size in dataclasses.asdict(largest.memory).items():
        if size:
            lines.append(f"  {_NAMES.get(name, name):<20} {units.bytes_(size):>9}")
    need = largest.memory.total
    total = f"  {'total':<20} {units.bytes_(need):>9}"
    if machine is None:
        lines.append(total)
    else:
        room = memory_bytes(machine)
        verdict = "does not fit" if need > room else "tight" if need > _TIGHT * room else "fits"
        of = f"of {units.bytes_(room)} of a {machine.accelerator.name}"
        lines.append(f"{total}  {of}, {need / room:.0%}: {verdict}")
        if need > room:
            lines += [f"  - {text}" for text in advice(layout, room)]
    others = [s for s in layout.shares if s is not largest]
    if others:
        told = (f"{_place(s.at)}: {units.bytes_(s.memory.total)}" for s in others)
        lines.append(f"  others: {', '.join(told)}")
    return "\n".join(lines)


def _places(layout: Layout, machine: Machine | None) -> str:
    if layout.ranks == 1:
        return ""
    lines = ["which ranks go together (those of the largest):"]
    sides = [getattr(layout.degrees, axis) for axis in DEGREES]
    grid = np.arange(layout.ranks).reshape(sides)
    at = np.unravel_index(layout.largest.rank, sides)
    for number, axis in reversed(list(enumerate(DEGREES))):
        if sides[number] == 1:
            continue
        line: Any = [slice(None) if n == number else int(i) for n, i in enumerate(at)]
        members = grid[tuple(line)].tolist()
        lines.append(
            f"  {axis:<10} {len(members):>6}  {_ranks(members):<28} {_on(members, machine)}"
        )
    if machine is not None:
        nodes, there = -(-layout.ranks // machine.accelerators), machine.nodes
        told = f"  {units.count(nodes)} nodes of {machine.name}, {machine.accelerators} ranks each"
        lines.append(told + ("" if there is None else f"; it has {units.count(there)}"))
        if there is not None and nodes > there:
            lines[-1] += f", too few for {units.count(layout.ranks)} ranks"
    return "\n".join(line.rstrip() for line in lines)


def _traffic(layout: Layout, machine: Machine | None) -> str:
    share = layout.largest
    if not share.traffic:
        return ""
    head = ["kind", "among", "ranks", "calls", "payload", "sent by a rank"]
    rows = []
    for row in share.traffic:
        cells = [row.kind, " x ".join(row.axes), units.count(len(row.members))]
        cells += [units.count(row.calls), units.bytes_(row.bytes), units.bytes_(row.wire)]
        if machine is not None:
            cells.append(_on(row.members, machine))
        rows.append(cells)
    lines = [f"exchanges of rank {share.rank} in an update:"]
    lines += _table([head + ([""] if machine is not None else []), *rows])
    if machine is not None:
        found = [spread(row, share.rank, machine.accelerators) for row in share.traffic]
        inside, outside = sum(f.inside for f in found), sum(f.outside for f in found)
        lines.append(
            f"  on links, in rings: a rank sends {units.bytes_(inside)} within its node, a node"
            f" {units.bytes_(outside)} to others"
        )
    return "\n".join(lines)


def _parameters(layout: Layout) -> str:
    alike: dict[str, list[Held]] = {}
    for one in layout.largest.held:  # those of layers with other numbers only are one row
        alike.setdefault(re.sub(r"(?<=\.)\d+(?=\.)", "*", one.name), []).append(one)
    found = sorted(alike.items(), key=lambda item: -sum(one.bytes for one in item[1]))
    rows = [["parameters, most bytes first", "whole", "on this rank", "times", "bytes"]]
    for name, held in found[:_ROWS]:
        shapes = _shapes(one.whole for one in held), _shapes(one.here for one in held)
        size = units.bytes_(sum(one.bytes for one in held))
        rows.append([name, *shapes, units.count(len(held)), size])
    lines = _table(rows)
    if rest := [one.bytes for _, held in found[_ROWS:] for one in held]:
        lines.append(f"  and {len(rest)} more, {units.bytes_(sum(rest))} together")
    return "\n".join(lines)


def _updates(layout: Layout) -> str:
    fewest, most = layout.microbatches
    each = f"{most}" if fewest == most else f"{fewest} or {most}"
    return (
        f"{units.count(layout.updates)} updates of {units.count(layout.samples)} samples, each in"
        f" {units.count(layout.samples // layout.micro)} microbatches of {layout.micro}; {each} on"
        " each rank"
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with columns of their width: the first two to the left, others to the right but
    the last if it has no title."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    words_ = [i < 2 or (i == len(widths) - 1 and not rows[0][i]) for i in range(len(widths))]
    lines = []
    for row in rows:
        cells = zip(row, widths, words_, strict=True)
        lines.append("  " + "  ".join(f"{c:<{w}}" if left else f"{c:>{w}}" for c, w, left in cells))
    return [line.rstrip() for line in lines]


def _degrees(degrees: Degrees) -> str:
    named = [(axis, getattr(degrees, axis)) for axis in DEGREES]
    return " x ".join(f"{axis} {n}" for axis, n in named if n > 1) or "all of it on one"


def _place(at: dict[str, int]) -> str:
    return " ".join(f"{axis} {n}" for axis, n in at.items())


def _ranks(members: Sequence[int]) -> str:
    if len(members) <= 4:
        return " ".join(map(str, members))
    return f"{members[0]} {members[1]} {members[2]} .. {members[-1]}"


def _on(members: Iterable[int], machine: Machine | None) -> str:
    if machine is None:
        return ""
    nodes = len({member // machine.accelerators for member in members})
    return "inside a node" if nodes == 1 else f"across {units.count(nodes)} nodes"


def _shapes(shapes: Iterable[tuple[int, ...]]) -> str:
    """Return the shape, or how many there are of different ones."""
    told = {" x ".join(map(str, shape)) or "1" for shape in shapes}
    return told.pop() if len(told) == 1 else f"{len(told)} shapes"
