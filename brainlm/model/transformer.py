"""Transformer blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import attend
from .config import ModelConfig

#: Logit of a token for its own likeness at the start; unlike ones have about 0.
_SHARPNESS = 22.0

#: Which tokens of a sequence: all, a stretch, or by index (batch, k).
Wanted = slice | Tensor | None


def tokens_at(x: Tensor, wanted: Wanted) -> Tensor:
    """Some tokens of x (batch, ..., n, width)."""
    if wanted is None:
        return x
    if isinstance(wanted, slice):
        return x[..., wanted, :]
    index = wanted.reshape(wanted.shape[0], *(1,) * (x.dim() - 3), -1, 1)
    return x.gather(-2, index.expand(*x.shape[:-2], -1, x.shape[-1]))


class Attention(nn.Module):
    """Multi-head attention of `x` to `context` (to itself when both are the same).

    With `conv` above 0 each head adds a convolution of the values along the sequence, over so many
    tokens, as the published 13M does (Xiong et al. 2021, Nystromformer). Tokens are then not
    exchangeable: their order counts. So it does with `landmarks`; see `attention`.
    """

    def __init__(self, width: int, heads: int, dropout: float, conv: int = 0, landmarks: int = 0):
        """`width` is shared out among the `heads`."""
        super().__init__()
        self.heads, self.dropout, self.landmarks = heads, dropout, landmarks
        self.backend = "sdpa"
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.conv = TokenConvolution(heads, conv) if conv else None

    @torch.no_grad()
    def look_at_similar(self) -> None:
        """Start with equal matrices for query and key, so that like tokens see each other.

        Tokens of near parcels and equal times are alike, so attention is local before any
        training (after Trockman & Kolter 2023, mimetic initialisation). On a simulated cohort
        of 7 recordings, 140 steps reach a masked R2 of 0.5 with it and of 0 without it.
        """
        width = self.query.weight.shape[0]
        self.query.weight.mul_((_SHARPNESS / (width / self.heads) ** 0.5) ** 0.5)
        self.key_value.weight[:width].copy_(self.query.weight)

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        weights: list[Tensor] | None = None,
        wanted: Wanted = None,
    ) -> Tensor:
        """(batch, n, width), (batch, m, width) -> (batch, n, width), or of the `wanted` of n alone.

        With a list for `weights`, the attention weights (batch, heads, n, m) are appended to it,
        which needs the memory of all of them.
        """
        query = self._split(self.query(x if self.landmarks else tokens_at(x, wanted)))
        key, value = (self._split(part) for part in self.key_value(context).chunk(2, dim=-1))
        mixed = attend(
            query,
            key,
            value,
            backend=self.backend,
            dropout=self.dropout if self.training else 0.0,
            landmarks=self.landmarks,
            weights=weights,
        )
        if self.landmarks:  # means of all queries
            mixed = tokens_at(mixed, wanted)
        if self.conv is not None:
            mixed = mixed + tokens_at(self.conv(value), wanted)
        joined: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return joined

    def _split(self, x: Tensor) -> Tensor:
        """(batch, n, width) -> (batch, heads, n, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class TokenConvolution(nn.Module):
    """A convolution along the sequence, one kernel for each head, zeros beyond the ends.

    Stretches of the sequence times the kernel's band matrix: the numbers of a grouped `Conv2d` of
    (reach, 1), whose backward pass takes many times as long (`bench_model` has both).
    """

    def __init__(self, heads: int, reach: int):
        """`reach` tokens, an odd number, with the token itself in the middle."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, 1, reach, 1))
        self.side, self.stretch = reach // 2, max(16, reach - 1)
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, value: Tensor) -> Tensor:
        """(batch, heads, n, width) -> the same shape."""
        n, stretch = value.shape[2], self.stretch
        blocks = -(-n // stretch)
        padded = F.pad(value, (0, 0, self.side, (blocks + 1) * stretch - self.side - n))
        blocked = padded.unflatten(2, (blocks + 1, stretch))
        seen = torch.cat([blocked[:, :, :-1], blocked[:, :, 1:]], dim=3)
        mixed = self._band(value.dtype)[:, None] @ seen
        return mixed.flatten(2, 3)[:, :, :n]

    def _band(self, dtype: torch.dtype) -> Tensor:
        """(heads, stretch, 2 stretch): row i weighs the tokens from i on."""
        kernel = self.weight.flatten(1).to(dtype)
        empty = kernel.new_zeros(len(kernel), self.stretch, 2 * self.stretch)
        row = torch.arange(self.stretch, device=kernel.device)[:, None]
        place = (row + torch.arange(kernel.shape[1], device=kernel.device)).expand_as(
            empty[0, :, : kernel.shape[1]]
        )
        return empty.scatter(
            2,
            place.expand(len(kernel), -1, -1),
            kernel[:, None].expand(-1, self.stretch, -1),
        )


class Mlp(nn.Sequential):
    """Two layers with a GELU between."""

    def __init__(self, width: int, inner: int, dropout: float):
        """`inner` is the width of the middle."""
        super().__init__(
            nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width), nn.Dropout(dropout)
        )


class SelfBlock(nn.Module):
    """Self-attention, then an MLP, each beside a shortcut, with a LayerNorm before or after."""

    def __init__(self, config: ModelConfig, width: int, heads: int, mlp: int):
        """All sizes are numbers of features."""
        super().__init__()
        self.after = config.norm == "post"
        self.norm1, self.norm2 = (nn.LayerNorm(width, config.norm_eps) for _ in range(2))
        self.attention = Attention(width, heads, config.dropout, config.conv, config.landmarks)
        self.mlp = Mlp(width, mlp, config.dropout)

    def forward(
        self, x: Tensor, weights: list[Tensor] | None = None, wanted: Wanted = None
    ) -> Tensor:
        """(batch, n, width) -> the same shape; `weights` as in `Attention`.

        Where only some tokens are `wanted`, the others are seen by them but not worked out.
        """
        if self.after:
            x = self.norm1(tokens_at(x, wanted) + self.attention(x, x, weights, wanted))
            return self.norm2(x + self.mlp(x))
        seen = self.norm1(x)
        x = tokens_at(x, wanted) + self.attention(seen, seen, weights, wanted)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class CrossBlock(nn.Module):
    """Attention of the queries to the encoder's tokens, then an MLP."""

    def __init__(self, config: ModelConfig, width: int, heads: int, mlp: int):
        """All sizes are numbers of features."""
        super().__init__()
        self.norm1, self.norm2, self.norm_context = (
            nn.LayerNorm(width, config.norm_eps) for _ in range(3)
        )
        self.attention = Attention(width, heads, config.dropout)
        self.mlp = Mlp(width, mlp, config.dropout)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(batch, n, width) queries, (batch, m, width) context -> (batch, n, width)."""
        x = x + self.attention(self.norm1(x), self.norm_context(context))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def run_block(block: nn.Module, recompute: bool, *inputs: object) -> Tensor:
    """`block(*inputs)`; with `recompute`, its inner activations are not kept for the backward pass.

    They are worked out a second time then, with the same dropout: a third more arithmetic for a
    fraction of the memory (Chen et al. 2016, sublinear memory cost).
    """
    if recompute and torch.is_grad_enabled():
        out: Tensor = checkpoint(block, *inputs, use_reentrant=False)
    else:
        out = block(*inputs)
    return out
