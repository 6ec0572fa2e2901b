"""What a forecast does when the past of some parcels is changed, subject by subject.

The effect of an experiment is the forecast after the change less the forecast as it was, of the
same windows in the same batches, so that a change of nothing has an effect of exactly nothing.
Beside each experiment stand shams: the same change of as many random parcels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from ..model.perturbation import Change, networks_of, parcel_rows, spread_of
from ..shards.reader import ShardReader
from ..shards.sampler import Window, batches, even_windows
from ..shards.splits import uniform_of
from ..train.data import load_batch
from .forecasters import Horizon
from .forecasts import Forecaster
from .units import units_of_subjects

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Experiment:
    """A change by its name."""

    name: str
    change: Change
    network: str | None = None  # where it is a whole network that is changed
    other: bool = False  # another recording's series is taken over

    def sham(self, parcels: int, number: int, seed: int) -> Experiment:
        """The same change of as many parcels, drawn."""
        order = sorted(range(parcels), key=lambda row: uniform_of(seed, self.name, number, row))
        rows = np.array(sorted(order[: len(self.change.rows)]))
        change = Change(rows, self.change.factor, self.change.value, self.change.last)
        return Experiment(f"{self.name}, sham {number}", change, None, self.other)


@dataclass(frozen=True, eq=False)
class Effects:
    """Effects of one experiment, means over each subject's windows; NaN where there is no data."""

    mean: Floats  # (subjects, parcels) over the steps, scaled units
    mean_sd: Floats  # the same in SD of the recording's past
    size: Floats  # (subjects, parcels) root mean square over steps and windows, scaled units
    steps: Floats  # (steps, parcels) mean over subjects
    power: Floats  # (steps, parcels) mean square, over subjects


def default_experiments(parcels: pd.DataFrame) -> list[Experiment]:
    """Each network silenced, and each doubled; none where the atlas tells no networks."""
    return [
        Experiment(f"{network} {word}", Change(parcel_rows(parcels, [network]), factor), network)
        for word, factor in (("silenced", 0.0), ("doubled", 2.0))
        for network in networks_of(parcels)
    ]


def draw_windows(reader: ShardReader, window: int, most: int, seed: int) -> list[Window]:
    """Even windows of `most` test recordings, of whole subjects drawn by the seed."""
    lengths = {name: n for name, n in reader.lengths("test").items() if n >= window}
    owner = reader.table["subject"].astype(str)
    subjects = sorted(
        {owner[name] for name in lengths}, key=lambda s: uniform_of("perturb", seed, s)
    )
    chosen: dict[str, int] = {}
    for subject in subjects:
        own = {name: n for name, n in lengths.items() if owner[name] == subject}
        if chosen and len(chosen) + len(own) > most:
            break
        chosen |= dict(list(own.items())[:most])
    if not chosen:
        raise DataError(
            f"No test recording has the model's {window} time points",
            file=reader.index_path,
            fix="raise eligibility.min_volumes to the window's length or choose another split.salt",
        )
    return even_windows(chosen, window)


@dataclass(eq=False)
class Laboratory:
    """Windows of test subjects, and a forecaster whose answers are compared."""

    forecaster: Forecaster
    reader: ShardReader
    windows: Sequence[Window]
    horizon: Horizon

    def __post_init__(self) -> None:
        """Look up who has which parcels."""
        self._before: dict[Window, Tensor] = {}
        table = self.reader.table["subject"].astype(str)
        self.subjects = sorted({table[one.recording_id] for one in self.windows})
        #: Of each subject: it, or its family.
        self.units = units_of_subjects(self.reader.table, self.subjects)
        place = {subject: number for number, subject in enumerate(self.subjects)}
        self._owner = {one: place[table[one.recording_id]] for one in self.windows}
        names = {one.recording_id for one in self.windows}
        self._covered = {name: ~np.isnan(self.reader.view(name)[0]) for name in names}
        #: (subjects, parcels) windows in which a subject has a parcel.
        self.counts = np.zeros((len(self.subjects), self.reader.n_parcels))
        for one in self.windows:
            self.counts[self._owner[one]] += self._covered[one.recording_id]

    @torch.no_grad()
    def run(self, experiments: Sequence[Experiment]) -> list[Effects]:
        """The effects of each experiment; each batch is read once for all of them."""
        totals = [_Totals(self.counts, self.horizon.future) for _ in experiments]
        for windows, past, other in self._pasts(any(one.other for one in experiments)):
            rows = np.array([self._owner[window] for window in windows])
            before = self._as_it_was(windows[0], past).double()
            spread = spread_of(past.double())
            covered = ~past[:, :, :1].isnan()
            for experiment, total in zip(experiments, totals, strict=True):
                changed = experiment.change(past, other)
                after = self.forecaster(changed, self.horizon.future).double()
                total.add(rows, torch.where(covered, after - before, 0.0), spread)
        return [total.effects() for total in totals]

    def _as_it_was(self, first: Window, past: Tensor) -> Tensor:
        """The forecast of a batch, told by its first window; made once for all experiments."""
        if first not in self._before:
            self._before[first] = self.forecaster(past, self.horizon.future).cpu()
        return self._before[first].to(past.device)

    @torch.no_grad()
    def null(self) -> float:
        """The largest effect of a change of nothing, in the first batch: a control, 0."""
        _, past, _ = next(self._pasts(False))
        nothing = Change(np.arange(past.shape[1]), factor=1.0)
        before = self.forecaster(past, self.horizon.future)
        after = self.forecaster(nothing(past), self.horizon.future)
        return float((after - before).nan_to_num().abs().max())

    def _pasts(self, others: bool) -> Iterator[tuple[Sequence[Window], Tensor, Tensor | None]]:
        """Windows, their past (windows, parcels, time), and that of another subject each.

        Windows of a batch lack the same parcels: the model then forecasts them together.
        """
        alike: dict[bytes, list[Window]] = {}
        for window in self.windows:
            alike.setdefault(self._covered[window.recording_id].tobytes(), []).append(window)
        donors = self._donors() if others else {}
        for group in alike.values():
            for some in batches(group, self.horizon.batch_size):
                theirs = [donors[window] for window in some] if others else None
                yield some, self._past(some), None if theirs is None else self._past(theirs)

    def _past(self, windows: Sequence[Window]) -> Tensor:
        batch = load_batch(self.reader, windows, self.horizon.window, self.horizon.device)
        return batch.signal[:, :, : -self.horizon.future]

    def _donors(self) -> Mapping[Window, Window]:
        """For each window one of the next subject, so that each gives as often as it takes."""
        if len(self.subjects) < 2:
            raise DataError(
                "An experiment takes over another subject's series, but there is one test subject",
                file=self.reader.index_path,
                fix="leave experiments with `other` out of perturbation.experiments",
            )
        of_subject: dict[int, list[Window]] = {}
        for window in self.windows:
            of_subject.setdefault(self._owner[window], []).append(window)
        found = {}
        for subject, windows in of_subject.items():
            giver = of_subject[(subject + 1) % len(self.subjects)]
            for number, window in enumerate(windows):
                found[window] = giver[number % len(giver)]
        return found


class _Totals:
    """Sums of one experiment's effects, by subject."""

    def __init__(self, counts: Floats, steps: int):
        self._counts = counts
        self._sums, self._sums_sd, self._squares = (np.zeros(counts.shape) for _ in range(3))
        self._steps, self._power = (np.zeros((steps, counts.shape[1])) for _ in range(2))

    def add(self, rows: NDArray[np.int64], effect: Tensor, spread: Tensor) -> None:
        """Effects (windows, parcels, steps) of the subjects `rows`; 0 where there is no data."""
        in_sd = (effect / spread).nan_to_num().mean(dim=2).cpu().numpy()
        values = effect.cpu().numpy()
        np.add.at(self._sums, rows, values.mean(axis=2))
        np.add.at(self._sums_sd, rows, in_sd)
        np.add.at(self._squares, rows, (values**2).mean(axis=2))
        share = 1 / np.maximum(self._counts[rows], 1)  # so that each subject weighs the same
        self._steps += np.einsum("wpt,wp->tp", values, share)
        self._power += np.einsum("wpt,wp->tp", values**2, share)

    def effects(self) -> Effects:
        """Means."""
        counts = np.where(self._counts > 0, self._counts, np.nan)
        subjects = (self._counts > 0).sum(axis=0)
        subjects = np.where(subjects > 0, subjects, np.nan)
        return Effects(
            self._sums / counts,
            self._sums_sd / counts,
            np.sqrt(self._squares / counts),
            self._steps / subjects,
            self._power / subjects,
        )
