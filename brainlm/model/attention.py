"""Attention of queries to keys, by one of several backends that give the same numbers.

sdpa     PyTorch's fused kernels (flash, cuDNN, memory-efficient); see `kernels`
flash    the package flash-attn, where it is installed: CUDA, 16-bit floats
eager    written out; the one that can hand back its weights
nystrom  an approximation of cost n x landmarks (Xiong et al. 2021, Nystromformer)

The first three compute the same; which one runs is nobody's business but the machine's. Landmarks
change the numbers and so belong to a model's architecture: where there are any, a sequence that is
longer is approximated, whatever the backend, and one that is not is attended to exactly.
"""

from __future__ import annotations

import importlib.util

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..errors import InputError

BACKENDS = ("sdpa", "flash", "eager", "nystrom")

#: Iterations of the pseudo-inverse, as many as Xiong et al. take.
_INVERSE_STEPS = 6


def check_backend(backend: str, landmarks: int) -> None:
    """Refuse a backend that is unknown, not installed, or not this model's."""
    if backend not in BACKENDS:
        raise InputError(
            f"There is no attention backend {backend!r}", fix=f"choose of {', '.join(BACKENDS)}"
        )
    if backend == "flash" and importlib.util.find_spec("flash_attn") is None:
        raise InputError(
            "The attention backend flash needs the package flash-attn, which is not installed",
            fix="`pip install flash-attn` beside CUDA's compiler, or choose sdpa, which has "
            "flash kernels of its own",
        )
    if backend == "nystrom" and not landmarks:
        raise InputError(
            "Nystrom attention needs a model with landmarks",
            fix="choose sdpa; landmarks are set in model.landmarks before training",
        )


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    backend: str = "sdpa",
    dropout: float = 0.0,
    landmarks: int = 0,
    weights: list[Tensor] | None = None,
) -> Tensor:
    """softmax(query key' / sqrt(d)) value: (batch, heads, n, d), twice (.., m, d) -> (.., n, d).

    `dropout` is the share of weights that are dropped, here and now: 0 unless training. A list for
    `weights` gets the weights (batch, heads, n, m) appended, which needs the memory of all of them,
    and takes the eager backend.
    """
    if landmarks and min(query.shape[2], key.shape[2]) > landmarks:
        return _nystrom(query, key, value, dropout, landmarks, weights)
    if weights is not None or backend == "eager":
        return _eager(query, key, value, dropout, weights)
    if backend == "flash":
        return _flash(query, key, value, dropout)
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)


def _eager(
    query: Tensor, key: Tensor, value: Tensor, dropout: float, weights: list[Tensor] | None
) -> Tensor:
    likeness = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    shares = _softmax(likeness)
    if weights is not None:
        weights.append(shares)
    return F.dropout(shares, dropout) @ value


def _flash(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """The package takes and gives (batch, n, heads, d)."""
    if query.dtype not in (torch.float16, torch.bfloat16):
        raise InputError(
            f"The attention backend flash takes 16-bit floats, not {query.dtype}",
            fix="train in bfloat16, or choose the backend sdpa",
        )
    from flash_attn import flash_attn_func

    parts = (part.transpose(1, 2) for part in (query, key, value))
    mixed: Tensor = flash_attn_func(*parts, dropout_p=dropout)
    return mixed.transpose(1, 2)


def _nystrom(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float,
    landmarks: int,
    weights: list[Tensor] | None,
) -> Tensor:
    """Through landmarks, the means of equal stretches of the sequence (Xiong et al. 2021, eq. 13).

    softmax(Q K~') softmax(Q~ K~')^+ softmax(Q~ K'), Q~ and K~ the landmarks: two narrow matrices
    and the pseudo-inverse of a small one. Like the convolution beside it, it depends on the order
    of tokens. Dropout is for the left factor, since the whole is never made.

    All in float32, autocast or not: the pseudo-inverse multiplies the errors of 16 bits.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key, single = query.float(), key.float(), value.float()
        mixed = _through_landmarks(query, key, single, dropout, landmarks, weights)
    return mixed.to(value.dtype)


def _through_landmarks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float,
    landmarks: int,
    weights: list[Tensor] | None,
) -> Tensor:
    """`_nystrom`, of float32."""
    scale = query.shape[-1] ** -0.25
    query, key = query * scale, key * scale
    query_marks, key_marks = (_segment_means(part, landmarks) for part in (query, key))
    left = _softmax(query @ key_marks.transpose(-1, -2))
    middle = _softmax(query_marks @ key_marks.transpose(-1, -2))
    right = _softmax(query_marks @ key.transpose(-1, -2))
    left = left @ _pseudo_inverse(middle)
    if weights is not None:
        weights.append(left @ right)
    return F.dropout(left, dropout) @ (right @ value)


def _softmax(likeness: Tensor) -> Tensor:
    """Over the keys, summed in float32 whatever the dtype, which is kept."""
    return likeness.softmax(dim=-1, dtype=torch.float32).to(likeness.dtype)


def _segment_means(x: Tensor, landmarks: int) -> Tensor:
    """(batch, heads, n, d) -> (batch, heads, landmarks, d): means of stretches of the sequence.

    Stretches differ by one token at most where n is no multiple (the authors' code fails there).
    """
    n = x.shape[2]
    segment = torch.arange(n, device=x.device) * landmarks // n
    member = (segment == torch.arange(landmarks, device=x.device)[:, None]).to(x.dtype)
    return (member @ x) / member.sum(dim=1, keepdim=True)


def _pseudo_inverse(matrix: Tensor) -> Tensor:
    """Moore-Penrose inverse of (batch, heads, k, k) rows of shares, by iteration (their eq. 15).

    The start is scaled by the largest column sum of a sample's heads. Theirs is the batch's, which
    would make a recording's numbers depend on its neighbours'; for a batch of one they are equal.
    """
    unit = torch.eye(matrix.shape[-1], device=matrix.device, dtype=matrix.dtype)
    inverse = matrix.transpose(-1, -2) / matrix.sum(dim=-2).amax(dim=(1, 2))[:, None, None, None]
    for _ in range(_INVERSE_STEPS):
        product = matrix @ inverse
        inner = 15 * unit - product @ (7 * unit - product)
        inverse = 0.25 * inverse @ (13 * unit - product @ inner)
    return inverse
