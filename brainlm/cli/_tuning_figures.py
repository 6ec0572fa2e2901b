"""Pictures of a fine-tuning: how good its best epoch so far is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._training_figures import (
    RECORDINGS,
    Gallery,
    groups_of,
    parcel_names,
    show_guesses,
    show_map,
    show_parcels,
    some_windows,
)

if TYPE_CHECKING:
    import pandas as pd

    from ..model.label_unit import HeadCard
    from ..model.mae import MaskedAutoencoder
    from ..shards.reader import ShardReader
    from ..shards.sampler import Window
    from ..train.checkpointing import TrainingLog
    from ..train.precision import Precision
    from ..train.settings import FinetuneSettings
    from ..train.validation import Measured


class TuningFigures:
    """What draws a fine-tuning: epochs that are the best so far, and the one that is kept."""

    def __init__(
        self,
        gallery: Gallery,
        reader: ShardReader,
        log: TrainingLog,
        settings: FinetuneSettings,
        head: HeadCard | None,
        *,
        precision: Precision,
        most: int,
    ):
        """`most`: so often, beside the one that is kept. `head` is none of forecasts."""
        self._gallery, self._reader, self._log = gallery, reader, log
        self._settings, self._head, self._precision = settings, head, precision
        self._most, self._drawn = most, 0  # last epoch that was drawn

    def look(self, step: int, model: MaskedAutoencoder, measured: Measured) -> None:
        """Draw an epoch that is the best so far, if it is long enough since the last one."""
        from ..train.checkpointing import best_step

        rows = self._validations()
        if not rows or best_step(rows) != step:
            return
        epochs, epoch = self._settings.epochs, rows[-1]["epoch"]
        if epoch * self._most // epochs > self._drawn * self._most // epochs:
            self._drawn = epoch
            self._draw(step, model, measured)

    def look_at_kept(self, step: int, model: MaskedAutoencoder, measured: Measured) -> None:
        """Draw the epoch that is kept, whatever was drawn before a stop."""
        if rows := self._validations():
            self._gallery.now = rows[-1]["step"]
            self._draw(step, model, measured)

    def _validations(self) -> list[dict[str, Any]]:
        """The log's rows of validations; none on other processes than the first, which draws."""
        rows = self._log.rows() if self._gallery.first else []
        return [row for row in rows if "val_loss" in row]

    def _draw(self, step: int, model: MaskedAutoencoder, measured: Measured) -> None:
        from ..train.tracking.shown import cls_vectors, spread
        from ..train.validation import fixed_windows

        gallery, reader, head = self._gallery, self._reader, self._head
        with gallery.passing_over_faults():
            if head is None or measured.labels is None:
                length = model.config.timepoints
                chosen = fixed_windows(reader.table, reader.lengths("val"), length, RECORDINGS)
                settings, precision = self._settings, self._precision
                show_forecasts(gallery, step, model, reader, chosen, settings, precision)
                show_parcels(gallery, step, measured)
                names = sorted({window.recording_id for window in chosen})
                groups = groups_of(reader, names)
            else:
                show_labels(gallery, step, measured.labels, head)
                names = spread(measured.labels["recording_id"].tolist(), RECORDINGS)
                groups = head.name, label_values(measured.labels, head, names)
            vectors = cls_vectors(model, reader, names, self._precision)
            if vectors is not None:
                show_map(gallery, step, vectors, *groups)


def show_forecasts(
    gallery: Gallery,
    step: int,
    model: MaskedAutoencoder,
    reader: ShardReader,
    windows: Sequence[Window],
    settings: FinetuneSettings,
    precision: Precision,
) -> None:
    """The same of the ends of windows."""
    from ..train.tracking.shown import forecast_guess, guesses

    guess = forecast_guess(model, settings.forecast_timepoints, precision)
    length, device = model.config.timepoints, model.cls.device
    chosen = some_windows(windows)
    found = guesses(reader, chosen, length, device, guess, settings.batch_size)
    show_guesses(gallery, step, found, parcel_names(reader))


def show_labels(gallery: Gallery, step: int, table: pd.DataFrame, head: HeadCard) -> None:
    """Predicted against true."""
    from ..report import training_figures as draw

    title = f"{len(table)} val recordings, step {step:,}"
    gallery.hang(
        "labels", step, lambda: draw.labels(table, head.name, head.kind, head.classes, title)
    )


def label_values(table: pd.DataFrame, head: HeadCard, names: Sequence[str]) -> list[Any]:
    """The true labels of some recordings: numbers, or words for classes."""
    true = table.set_index("recording_id").loc[list(names), "true"].tolist()
    if head.kind == "regression":
        return true
    words = head.classes or ("0", "1")
    return [words[int(value)] for value in true]
