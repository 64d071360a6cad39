"""Softmax attention over some of the keys, and how such parts make up the whole.

With q, k, v of (b, heads, tokens, head width) and s = q k^T / sqrt(head width), a part returns its
output and L = log sum exp s over its keys. Outputs of two parts are weighed by exp L, as
exp(L1 - L) out1 + exp(L2 - L) out2 with L = log(exp L1 + exp L2); and given the whole's output and
L, the gradients of q, k and v fall into sums over parts.

Sources: Milakov and Gimelshein 2018, arXiv:1805.02867; the backward pass, Dao et al. 2022,
arXiv:2205.14135.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ops = torch.ops.aten


def part(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output over these keys, in the type of ``q``, and L (b, heads, tokens of q) in
    float32 or float64."""
    if q.device.type == "cpu":
        return _ops._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    if _flash(q):
        out, logs, *_ = _ops._scaled_dot_product_flash_attention(q, k, v)
        return out, logs
    return plain_part(q, k, v)


def merged(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return output and L over the keys of two parts, the output in the type of L."""
    (out1, logs1), (out2, logs2) = one, other
    logs = torch.logaddexp(logs1, logs2)
    weight1, weight2 = ((each - logs).exp()[..., None] for each in (logs1, logs2))
    return out1 * weight1 + out2 * weight2, logs


def part_back(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logs: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the keys ``k`` add to the gradients of q, k and v.

    grad, out, logs: the gradient of the whole's output, that output and its L.
    """
    if q.device.type == "cpu":
        back: Any = _ops._scaled_dot_product_flash_attention_for_cpu_backward
        return back(grad, q, k, v, out, logs, 0.0, False)
    if _flash(q):
        back = _ops._scaled_dot_product_flash_attention_backward
        # Seed and offset are those of dropout, and there is none.
        none = torch.zeros(2, dtype=torch.uint64, device=q.device)
        seen = q.shape[2], k.shape[2]
        return back(grad, q, k, v, out, logs, None, None, *seen, 0.0, False, none, none)
    return plain_part_back(grad, q, k, v, out, logs)


def _flash(q: Tensor) -> bool:
    """Whether CUDA's fused kernel takes it."""
    if not q.is_cuda or torch.cuda.get_device_capability(q.device) < (8, 0):
        return False
    width = q.shape[3]
    return q.dtype in (torch.float16, torch.bfloat16) and width % 8 == 0 and width <= 256


def plain_part(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`part` in matrix products, on any device; keeps all scores in between."""
    scores = _scores(q, k)
    logs = scores.logsumexp(3)
    return (scores - logs[..., None]).exp().to(v.dtype) @ v, logs


def plain_part_back(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logs: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`part_back` in matrix products, on any device."""
    weights = (_scores(q, k) - logs[..., None]).exp()
    own = (grad * out).sum(3, keepdim=True)
    scores = (weights * (grad @ v.mT - own) * q.shape[3] ** -0.5).to(q.dtype)
    return scores @ k, scores.mT @ q, weights.to(v.dtype).mT @ grad


def _scores(q: Tensor, k: Tensor) -> Tensor:
    exact = torch.float64 if q.dtype == torch.float64 else torch.float32
    return (q @ k.mT).to(exact) * q.shape[3] ** -0.5
