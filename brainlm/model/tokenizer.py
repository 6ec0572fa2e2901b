"""From signals to tokens and back.

Two ways: a token is 20 time points of one parcel; or a square of an image whose rows are the
parcels, in order of their y. Either way `cut` gives the entries of each token, NaN where there
is no data, and `paste` puts guessed entries back where they belong.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..errors import InputError
from .config import ModelConfig
from .mask import count_visible, future_timepoints
from .place import ImagePlace, ParcelPlace, RawParcelPlace

#: What stands in an image where there is no data, as published.
NO_DATA = -1.0


class ParcelTokenizer(nn.Module):
    """Token = linear(patch) + where + when (Ortega Caro et al., ICLR 2024, section 3.2).

    A token is patch `n` of parcel `p`, index `p * patches + n`.
    """

    def __init__(self, config: ModelConfig, xyz_mm: Tensor):
        """`xyz_mm`: (parcels, 3) centroids in MNI mm."""
        super().__init__()
        self.config, self.parcels, self.entries = config, config.parcels, config.patch
        self.patches = config.timepoints // config.patch
        self.row = self.patches  # tokens of one parcel
        self.tokens = config.parcels * self.row
        self.signal_projection = nn.Linear(config.patch, config.hidden)
        self.place = self.place_of(config, xyz_mm, config.hidden)

    @staticmethod
    def place_of(config: ModelConfig, xyz_mm: Tensor, width: int) -> nn.Module:
        """Embedding of the tokens' places, `width` wide."""
        kind = {"fourier": ParcelPlace, "linear": RawParcelPlace}[config.place]
        return kind(xyz_mm, config.timepoints // config.patch, width)

    def available(self, covered: Tensor) -> Tensor:
        """Tokens with data (batch, tokens), of `covered` (batch, parcels) ones."""
        return self.of_parcels(covered)

    def cut(self, signal: Tensor) -> Tensor:
        """Cut (batch, parcels, time) into patches (batch, tokens, entries)."""
        _check_window(self.config, signal)
        return signal.reshape(signal.shape[0], -1, self.entries)

    def paste(self, patches: Tensor, index: Tensor) -> Tensor:
        """Patches (batch, k, entries) of the tokens `index` in place, (batch, parcels, time).

        NaN elsewhere.
        """
        return _scatter(patches, index, self.tokens).reshape(patches.shape[0], self.parcels, -1)

    def forward(self, patches: Tensor, index: Tensor) -> Tensor:
        """Tokens (batch, k, hidden) of chosen patches (batch, k, entries) at `index` (batch, k)."""
        patches = patches.to(self.signal_projection.weight.dtype)
        tokens: Tensor = self.signal_projection(patches) + self.place(index)
        return tokens

    def last(self, timepoints: int, *, wholly: bool = False) -> Tensor:
        """Tokens (tokens,) bool that hold any of (or only) the last `timepoints` of a window."""
        return last_of_row(self.config, timepoints, wholly=wholly).repeat(self.parcels)

    def of_parcels(self, parcels: Tensor) -> Tensor:
        """Tokens (batch, tokens) of the chosen `parcels` (batch, parcels), both bool."""
        return parcels.repeat_interleave(self.patches, dim=1)

    def filled(self, covered: Tensor) -> Tensor:
        """Entries with data of each token (batch, tokens) of `covered` (batch, parcels) parcels."""
        return self.of_parcels(covered).long() * self.entries

    def blank(self, patches: Tensor, timepoints: int) -> Tensor:
        """Patches (batch, tokens, entries) whose last `timepoints` of the window are 0."""
        first = self.patches * self.entries - timepoints
        time = torch.arange(self.patches * self.entries).reshape(-1, self.entries)
        future = (time >= first).repeat(self.parcels, 1).to(patches.device)
        return patches.masked_fill(future, 0.0)


class ImageTokenizer(nn.Module):
    """Token = linear(square of the image) + a fixed place; parcels are rows, time goes right.

    The published models pad the image to a square with -1 on all sides (`padding: square`), see
    all its tokens, and repeat it on three equal channels, which fold into one: the sum of their
    weights. Without padding the same tokens are there but for those that hold no data at all.

    A parcel without data is no target, and a square of nothing else is not there. In a square that
    other parcels share, each of its entries is replaced by a mark that belongs to the entry's place
    in the square: learned (`missing: learned`), or -1 as the released models know it from their
    padding. Neither can pass for a signal: 0 would be the parcel's mean, while no scaled series
    stays at -1, 5.6 interquartile ranges below its own mean.
    """

    order: Tensor
    inverse: Tensor
    no_data: Tensor

    def __init__(self, config: ModelConfig, xyz_mm: Tensor):
        """`xyz_mm`: (parcels, 3) centroids in MNI mm; equal y keep the atlas's order."""
        super().__init__()
        self.config = config
        side, self.scale, self.timepoints = config.patch, config.input_scale, config.timepoints
        self.side, self.entries = side, side * side
        self.square = config.padding == "square"
        self.rows, self.columns = _axes(config)
        self.row = self.columns.count  # tokens of the same parcels
        self.tokens = self.rows.count * self.row
        order = torch.argsort(xyz_mm[:, 1], stable=True)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("inverse", order.argsort(), persistent=False)
        self.signal_projection = nn.Linear(self.entries, config.hidden)
        self.place = self.place_of(config, xyz_mm, config.hidden)
        if config.missing == "learned":
            self.no_data = nn.Parameter(torch.full((self.entries,), NO_DATA))
        else:
            mark = torch.full((self.entries,), NO_DATA, device="cpu")
            self.register_buffer("no_data", mark, persistent=False)

    @classmethod
    def place_of(cls, config: ModelConfig, xyz_mm: Tensor, width: int) -> ImagePlace:
        """Embedding of the tokens' places, `width` wide."""
        rows, columns = _axes(config)
        grid = torch.meshgrid(
            rows.first + torch.arange(rows.count, device="cpu"),
            columns.first + torch.arange(columns.count, device="cpu"),
            indexing="ij",
        )
        return ImagePlace(grid[0].flatten(), grid[1].flatten(), width)

    def available(self, covered: Tensor) -> Tensor:
        """Tokens (batch, tokens) to be shown or asked for, of `covered` (batch, parcels) parcels.

        In the published square these are all, even where there is only padding.
        """
        if self.square:
            return torch.ones(len(covered), self.tokens, dtype=torch.bool, device=covered.device)
        return self.of_parcels(covered)

    def cut(self, signal: Tensor) -> Tensor:
        """Cut (batch, parcels, time) into scaled squares (batch, tokens, entries); NaN: no data."""
        _check_window(self.config, signal)
        pad = (self.columns.before, self.columns.after, self.rows.before, self.rows.after)
        image = F.pad(signal[:, self.order] / self.scale, pad, value=torch.nan)
        squares = image.unflatten(2, (self.columns.count, self.side))
        squares = squares.unflatten(1, (self.rows.count, self.side)).transpose(2, 3)
        return squares.flatten(3).flatten(1, 2)

    def paste(self, patches: Tensor, index: Tensor) -> Tensor:
        """Squares (batch, k, entries) of the tokens `index` in place, (batch, parcels, time).

        Unscaled; NaN elsewhere.
        """
        grid = _scatter(patches, index, self.tokens).unflatten(2, (self.side, self.side))
        grid = grid.unflatten(1, (self.rows.count, self.columns.count)).transpose(2, 3)
        image = grid.flatten(3, 4).flatten(1, 2)
        rows = image[:, self.rows.before : self.rows.before + len(self.order)]
        columns = slice(self.columns.before, self.columns.before + self.timepoints)
        return rows[:, self.inverse, columns] * self.scale

    def forward(self, patches: Tensor, index: Tensor) -> Tensor:
        """Tokens (batch, k, hidden) of chosen squares (batch, k, entries) at `index` (batch, k)."""
        seen = torch.where(patches.isnan(), self.no_data, patches.to(self.no_data.dtype))
        tokens: Tensor = self.signal_projection(seen) + self.place(index)
        return tokens

    def last(self, timepoints: int, *, wholly: bool = False) -> Tensor:
        """Tokens (tokens,) bool that hold any of (or only) the last `timepoints` of a window.

        The padding beyond the window is no token of the future.
        """
        return last_of_row(self.config, timepoints, wholly=wholly).repeat(self.rows.count)

    def of_parcels(self, parcels: Tensor) -> Tensor:
        """Tokens (batch, tokens) that hold any of the `parcels` (batch, parcels), both bool."""
        rows = F.pad(parcels[:, self.order], (self.rows.before, self.rows.after))
        return rows.unflatten(1, (-1, self.side)).any(2).repeat_interleave(self.columns.count, 1)

    def filled(self, covered: Tensor) -> Tensor:
        """Entries with data of each token (batch, tokens) of `covered` (batch, parcels) parcels."""
        parcels = F.pad(covered[:, self.order].long(), (self.rows.before, self.rows.after))
        time = F.pad(
            torch.ones(self.timepoints, dtype=torch.int64, device=covered.device),
            (self.columns.before, self.columns.after),
        )
        rows, columns = (axis.unflatten(-1, (-1, self.side)).sum(-1) for axis in (parcels, time))
        return (rows[..., None] * columns).flatten(1)

    def blank(self, patches: Tensor, timepoints: int) -> Tensor:
        """Squares (batch, tokens, entries) whose last `timepoints` of the window are 0.

        So is the padding above and below them, as published; a parcel without data is not.
        """
        time = torch.arange(self.columns.count * self.side) - self.columns.before
        future = (time >= self.timepoints - timepoints) & (time < self.timepoints)
        parcel = torch.arange(self.rows.count * self.side) - self.rows.before
        padding = (parcel < 0) | (parcel >= len(self.order))
        future, padding = (
            image.expand(len(parcel), len(time))
            .reshape(self.rows.count, self.side, self.columns.count, self.side)
            .transpose(1, 2)
            .reshape(self.tokens, self.entries)
            .to(patches.device)
            for image in (future, padding[:, None])
        )
        return patches.masked_fill(future & (padding | ~patches.isnan()), 0.0)


def _check_window(config: ModelConfig, signal: Tensor) -> None:
    """Refuse what is not (batch, parcels, time): turned, it would be cut all the same."""
    if signal.ndim != 3 or signal.shape[1:] != (config.parcels, config.timepoints):
        raise InputError(
            f"The network takes windows (batch, {config.parcels} parcels, {config.timepoints} time "
            f"points), not {tuple(signal.shape)}",
            fix="cut series into windows, and transpose what is (time, parcels)",
        )


class _Axis:
    """How one axis of the image is padded and cut."""

    def __init__(self, first: int, count: int, before: int, after: int):
        self.first, self.count = first, count  # tokens, counted in the square
        self.before, self.after = before, after  # entries of padding

    @classmethod
    def of(cls, size: int, height: int, side: int, *, whole: bool) -> _Axis:
        """Centre `size` entries in `height`; leave out tokens without data unless `whole`."""
        before = (height - size) // 2
        after = height - size - before
        first, beyond = (0, 0) if whole else (before // side, after // side)
        return cls(
            first, height // side - first - beyond, before - first * side, after - beyond * side
        )


def _axes(config: ModelConfig) -> tuple[_Axis, _Axis]:
    """Rows and columns of the image: the square's, or those of them with data."""
    height = -(-max(config.parcels, config.timepoints) // config.patch) * config.patch
    whole = config.padding == "square"
    return (
        _Axis.of(config.parcels, height, config.patch, whole=whole),
        _Axis.of(config.timepoints, height, config.patch, whole=whole),
    )


def count_tokens(config: ModelConfig) -> int:
    """Tokens of a window, those of parcels without data included."""
    if config.tokenizer == "parcels":
        return config.parcels * (config.timepoints // config.patch)
    rows, columns = _axes(config)
    return rows.count * columns.count


def fewest_tokens(config: ModelConfig, parcels: int) -> int:
    """Tokens that a window with so many `parcels` with data has at least, whichever they are."""
    if config.tokenizer == "parcels":
        return parcels * (config.timepoints // config.patch)
    if config.padding == "square":
        return count_tokens(config)
    rows, columns = _axes(config)
    thinnest = config.patch - max(rows.before, rows.after)
    empty = min((config.parcels - parcels) // thinnest, rows.count - 1)
    return (rows.count - empty) * columns.count


def count_shown(config: ModelConfig, kind: str, ratio: float, parcels: int) -> int:
    """Tokens that `mask.make_mask` can show of every recording with so many `parcels` or more.

    Given as its `n_visible`, the shapes are the same for all batches of a training.
    """
    fewest = fewest_tokens(config, parcels)
    future = last_of_row(config, future_timepoints(ratio, config.timepoints))
    rows = fewest // len(future)
    shown = {
        "random": count_visible(ratio, fewest),
        "networks": count_visible(ratio, fewest),
        "parcels": count_visible(ratio, rows) * len(future),
        "future": rows * int((~future).sum()),
    }[kind]
    if shown < 1:
        raise InputError(
            f"Hiding {ratio:.0%} as {kind} leaves nothing to show of a recording with {parcels} "
            "parcels",
            fix="mask a smaller share of the window, or leave out recordings with few parcels",
        )
    return shown


def last_of_row(config: ModelConfig, timepoints: int, *, wholly: bool = False) -> Tensor:
    """Of the tokens of one row (row,): bool, any of (or only) the last `timepoints` are in it."""
    if config.tokenizer == "parcels":
        starts = torch.arange(0, config.timepoints, config.patch, device="cpu")
    else:
        columns = _axes(config)[1]
        starts = torch.arange(columns.count, device="cpu") * config.patch - columns.before
    first = config.timepoints - timepoints
    future = starts >= first if wholly else starts + config.patch > first
    return future & (starts < config.timepoints)


def _scatter(patches: Tensor, index: Tensor, tokens: int) -> Tensor:
    """(batch, k, entries) -> (batch, tokens, entries), NaN where nothing is."""
    place = index[..., None].expand_as(patches)
    empty = patches.new_full((patches.shape[0], tokens, patches.shape[2]), torch.nan)
    return empty.scatter(1, place, patches)
