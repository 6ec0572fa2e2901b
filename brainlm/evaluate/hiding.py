"""Windows of the test split with something hidden, and what is guessed of it.

A condition says what is hidden. In all of them the guess of the model stands beside two that need
none: the recording's own mean (0 after scaling), and the nearest visible values in time of the same
parcel. Nobody is shown anything of what is to be guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from ..model.mae import MaskedAutoencoder
from ..model.mask import TokenMask, future_timepoints, generator, make_mask
from ..shards.reader import ShardReader
from ..shards.sampler import Window, batches
from ..train.data import Batch, Coverage, ahead, load_batch
from ..train.masking import network_numbers
from ..train.validation import reconstruct
from .baselines.interpolation import interpolate_hidden

MODEL, MEAN, LINES, LAST_VALUE = "brainlm", "zero", "interpolation", "persistence"

#: Wraps the passes over batches of windows, e.g. with a progress bar; told how many there are.
Tick = Callable[[Iterable["Read"], int], Iterable["Read"]]
#: Windows and what was read of them.
Read = tuple[Sequence[Window], Batch]


@dataclass(frozen=True)
class Condition:
    """What is hidden of a window: `share` of its tokens at random, or of its end, ..."""

    kind: str  # of `model.mask.KINDS`
    share: float

    @property
    def methods(self) -> tuple[str, ...]:
        """Who guesses. Beyond the end of what is seen, a line in time is its last value."""
        return (MODEL, MEAN, LAST_VALUE if self.kind == "future" else LINES)


@dataclass(frozen=True, eq=False)
class Guessed:
    """What was hidden of windows, and what each method makes of it: (batch, parcels, time)."""

    truth: Tensor  # NaN where nothing was to be guessed
    guesses: Mapping[str, Tensor]


class Hider:
    """Hides what conditions say, with masks decided by (seed, recording, start)."""

    def __init__(self, model: MaskedAutoencoder, reader: ShardReader, seed: int):
        """The model that is to guess, and where the parcels' networks are told."""
        self.model, self.seed, self._reader = model.eval(), seed, reader

    @torch.no_grad()
    def guess(self, windows: Sequence[Window], signal: Tensor, condition: Condition) -> Guessed:
        """Hide, and let everybody guess; `signal` (batch, parcels, time), windows alike."""
        if condition.kind == "future":
            return self._forecast(signal, future_timepoints(condition.share, signal.shape[2]))
        mask = self.mask(windows, ~signal.isnan().any(dim=2), condition)
        result = reconstruct(self.model, signal, mask)
        paste = self.model.tokenizer.paste
        truth, predicted = (paste(part, mask.hidden) for part in (result.truth, result.predicted))
        known = shown_entries(self.model, mask) & ~signal.isnan()
        guesses = (predicted, torch.zeros_like(signal), interpolate_hidden(signal, known))
        return Guessed(truth, dict(zip(condition.methods, guesses, strict=True)))

    def mask(self, windows: Sequence[Window], covered: Tensor, condition: Condition) -> TokenMask:
        """Each window's own mask, whoever else is in the batch; `covered` (batch, parcels).

        Of the same kind, a greater share hides what a smaller one does and more.
        """
        named = condition.kind == "networks"
        groups = network_numbers(self._reader.parcels) if named else None
        masks = [
            make_mask(
                self.model.tokenizer,
                covered[row : row + 1],
                condition.kind,
                condition.share,
                generator(self.seed, "test", window.recording_id, window.start),
                groups=groups,
            )
            for row, window in enumerate(windows)
        ]
        return TokenMask(*(torch.cat(parts) for parts in zip(*masks, strict=True)))

    def _forecast(self, signal: Tensor, timepoints: int) -> Guessed:
        """Exactly the last `timepoints` are hidden, whatever the tokens are."""
        truth = torch.full_like(signal, torch.nan)
        truth[:, :, -timepoints:] = signal[:, :, -timepoints:]
        predicted = torch.full_like(signal, torch.nan)
        predicted[:, :, -timepoints:] = self.model.forecast(signal, timepoints).float()
        known = ~signal.isnan()
        known[:, :, -timepoints:] = False
        last_value = interpolate_hidden(signal, known)
        return Guessed(
            truth, {MODEL: predicted, MEAN: torch.zeros_like(signal), LAST_VALUE: last_value}
        )


def shown_entries(model: MaskedAutoencoder, mask: TokenMask) -> Tensor:
    """Entries (batch, parcels, time) of the visible tokens, those without data included."""
    entries = model.tokenizer.entries
    ones = torch.ones(*mask.visible.shape, entries, device=mask.visible.device)
    return ~model.tokenizer.paste(ones, mask.visible).isnan()


def read_alike(
    reader: ShardReader,
    windows: Sequence[Window],
    model: MaskedAutoencoder,
    batch_size: int,
    tick: Tick,
) -> Iterator[Read]:
    """Read each window once, in batches in which all have the same parcels.

    So all of a batch have equally many tokens, and each is hidden its own exact share.
    """
    config, device = model.config, next(model.parameters()).device
    covered = Coverage(reader).of(windows).numpy()
    keyed = sorted((row.tobytes(), window) for row, window in zip(covered, windows, strict=True))
    parts = [
        part
        for _, alike in groupby(keyed, key=lambda pair: pair[0])
        for part in batches([window for _, window in alike], batch_size)
    ]
    read = ahead(lambda part: (part, load_batch(reader, part, config.timepoints, device)), parts)
    yield from tick(read, len(parts))
