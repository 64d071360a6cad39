"""Tensors in safetensors files, whole or in pieces, and an index of the pieces.

``index.json`` of a folder says for each tensor ``part/name`` its type, its shape, and which rank
wrote which piece of it: the piece of rank 3 is under ``name`` in ``part-00003.safetensors``.
Written by one rank alone the file is ``part.safetensors`` and everything in it is whole. Nothing is
ever unpickled.

The format: https://huggingface.co/docs/safetensors. It is written here, and not by its library,
because a checkpoint's checksum is taken on the way and memory holds no second copy.
"""

from __future__ import annotations

import json
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors
import torch
from torch import Tensor
from torch.distributed.checkpoint import LoadPlan, LoadPlanner, StorageReader
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.futures import Future

from swath.nn.lora import Merged

INDEX = "index.json"
TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""By their names in safetensors files."""
NAMES = {dtype: name for name, dtype in TYPES.items()}


@dataclass(frozen=True)
class Piece:
    """A box of a tensor: where in the tensor it begins, its sides, and who wrote it."""

    rank: int
    offset: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Stored:
    """A tensor on disk."""

    folder: pathlib.Path
    name: str  # part/name
    dtype: torch.dtype
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
    ranks: int  # that wrote the folder

    def file(self, piece: Piece) -> pathlib.Path:
        """Return where ``piece`` lies."""
        return self.folder / file_name(self.name.partition("/")[0], piece.rank, self.ranks)

    def read(self) -> Tensor:
        """Return the whole tensor, in the CPU's memory."""
        whole = torch.empty(self.shape, dtype=self.dtype)
        for piece in self.pieces:
            with safetensors.safe_open(self.file(piece), "pt") as opened:
                box = whole
                for dim, (start, side) in enumerate(zip(piece.offset, piece.shape, strict=True)):
                    box = box.narrow(dim, start, side)
                box.copy_(opened.get_tensor(self.name.partition("/")[2]))
        return whole


Index = dict[str, Stored]
"""By part/name."""


def file_name(part: str, rank: int, ranks: int) -> str:
    """Return the name of the file that ``rank`` of ``ranks`` writes for ``part``."""
    return f"{part}.safetensors" if ranks == 1 else f"{part}-{rank:05d}.safetensors"


def pack(
    tensors: Mapping[str, Tensor | Stored | Merged], about: Mapping[str, str] | None = None
) -> Iterator[bytes | memoryview]:
    """Yield the content of a safetensors file, one tensor at a time.

    Tensors come from wherever they are to the CPU's memory, and from disk, only when it is their
    turn. about: words for the file's head.
    """
    # The widest numbers first, so that each begins at a multiple of its width.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    head: dict[str, Any] = {"__metadata__": dict(about)} if about else {}
    start = 0
    for name in order:
        tensor = tensors[name]
        shape, end = list(tensor.shape), start + _bytes(tensor)
        head[name] = {"dtype": NAMES[tensor.dtype], "shape": shape, "data_offsets": [start, end]}
        start = end
    words = json.dumps(head, separators=(",", ":")).encode()
    words += b" " * (-len(words) % 8)
    yield len(words).to_bytes(8, "little") + words
    for name in order:
        tensor = tensors[name]
        value = tensor.detach().cpu() if isinstance(tensor, Tensor) else tensor.read()
        yield value.contiguous().view(-1).view(torch.uint8).numpy().data


def _bytes(tensor: Tensor | Stored | Merged) -> int:
    return torch.Size(tensor.shape).numel() * tensor.dtype.itemsize


def index_content(metadata: Metadata, writers: Mapping[tuple[str, Any], int], ranks: int) -> bytes:
    """Return the content of index.json.

    metadata: of all tensors. writers: the rank that writes the piece of a name at an offset.
    """
    tensors = {}
    for name, known in metadata.state_dict_metadata.items():
        assert isinstance(known, TensorStorageMetadata), f"{name} is no tensor"
        boxes = [(tuple(chunk.offsets), tuple(chunk.sizes)) for chunk in known.chunks]
        tensors[name] = {
            "dtype": NAMES[known.properties.dtype],
            "shape": list(known.size),
            "pieces": [[writers[name, offset], offset, shape] for offset, shape in boxes],
        }
    return json.dumps({"ranks": ranks, "tensors": tensors}, separators=(",", ":")).encode()


def read_index(folder: pathlib.Path) -> Index:
    """Return what tensors ``folder`` holds."""
    told = json.loads((folder / INDEX).read_text())
    return {
        name: Stored(
            folder,
            name,
            TYPES[entry["dtype"]],
            tuple(entry["shape"]),
            tuple(Piece(rank, tuple(at), tuple(shape)) for rank, at, shape in entry["pieces"]),
            told["ranks"],
        )
        for name, entry in told["tensors"].items()
    }


class Reader(StorageReader):
    """What torch's distributed checkpoints read from: the tensors of ``index``."""

    def __init__(self, index: Iterable[Stored]) -> None:
        self.index = {stored.name: stored for stored in index}

    def read_metadata(self) -> Metadata:
        return Metadata(
            {
                name: TensorStorageMetadata(
                    TensorProperties(dtype=stored.dtype),
                    torch.Size(stored.shape),
                    [
                        ChunkStorageMetadata(torch.Size(p.offset), torch.Size(p.shape))
                        for p in stored.pieces
                    ],
                )
                for name, stored in self.index.items()
            }
        )

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Copy the pieces that ``plan`` asks for to where ``planner`` wants them."""
        pieces = {(s.name, p.offset): s.file(p) for s in self.index.values() for p in s.pieces}
        by_file = defaultdict(list)
        for item in plan.items:
            wanted = item.storage_index
            by_file[pieces[wanted.fqn, tuple(wanted.offset or ())]].append(item)
        for file, items in by_file.items():
            with safetensors.safe_open(file, "pt") as opened:
                for item in items:
                    target = planner.resolve_tensor(item).detach()
                    name = item.storage_index.fqn.partition("/")[2]
                    sides = zip(item.storage_offsets, item.lengths, strict=True)
                    box = tuple(slice(start, start + side) for start, side in sides)
                    # A number alone has no sides to be cut along.
                    source = opened.get_slice(name)[box] if box else opened.get_tensor(name)
                    target.copy_(source)
                    planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing is kept from one load to the next."""

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool) -> None:
        """Nothing to do: the index says all."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True
