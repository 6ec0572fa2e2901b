"""Pictures of a pretraining, drawn as it goes: files in models/RUN/figures, images for trackers."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._console import warn

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from ..model.mae import MaskedAutoencoder
    from ..shards.reader import ShardReader
    from ..shards.sampler import Window
    from ..train.pretrain import Plan
    from ..train.settings import PretrainSettings
    from ..train.tracking.trackers import Trackers
    from ..train.validation import Look, Measured

#: Of the val split: windows that are guessed, recordings on the map.
WINDOWS, RECORDINGS = 16, 256
_FEWEST_ON_MAP = 3


class Gallery:
    """Where pictures go. One that fails is told of once and passed over."""

    def __init__(self, folder: Path, trackers: Trackers, *, first: bool, shown: Path | None = None):
        """Only the first process draws. `shown`: a second place, which trainings share."""
        self.folder, self.first, self.shown = folder, first, shown
        #: The step at which trackers are shown an older one: they take nothing of the past.
        self.now: int | None = None
        self._trackers, self._told = trackers, False

    def hang(self, name: str, step: int, draw: Callable[[], Figure]) -> None:
        """Draw NAME.png and NAME.svg anew; the trackers keep those of earlier steps."""
        from ..files import atomic_path
        from ..report.style import to_full_png, to_svg

        if not self.first:
            return
        with self.passing_over_faults():
            figure = draw()
            contents = {"png": to_full_png(figure)}  # first: an SVG leaves the figure at 72 dpi
            contents["svg"] = to_svg(figure).encode()
            for suffix, content in contents.items():
                for place in (self.folder, *([self.shown] if self.shown else [])):
                    with atomic_path(place / f"{name}.{suffix}") as temporary:
                        temporary.write_bytes(content)
            kept, now = ("", step) if self.now is None else ("kept/", self.now)
            self._trackers.figure(kept + name, now, contents["png"])

    def show(self) -> None:
        """Let `shown` hold this training's pictures and no others.

        One that was finished before draws nothing more, and another's may have come there since.
        """
        from ..files import atomic_path

        if not (self.first and self.shown and self.folder.is_dir()):
            return
        with self.passing_over_faults():
            for other in self.shown.glob("*.*"):
                if not (self.folder / other.name).exists():
                    other.unlink()
            for own in self.folder.glob("*.*"):
                with atomic_path(self.shown / own.name) as temporary:
                    shutil.copyfile(own, temporary)

    @contextlib.contextmanager
    def passing_over_faults(self) -> Iterator[None]:
        """A word, and the training goes on."""
        try:
            yield
        except Exception as error:
            if not self._told:
                self._told = True
                warn(
                    f"A figure could not be made ({type(error).__name__}: {error}); "
                    "the training goes on"
                )


def pretraining_figures(
    gallery: Gallery,
    reader: ShardReader,
    plan: Plan,
    settings: PretrainSettings,
    *,
    seed: int,
    device: torch.device,
    most: int,
) -> Look | None:
    """What draws a pretraining: after `most` of its validations, among them the last."""
    from ..train.precision import choose_precision
    from ..train.tracking.shown import cls_vectors, guesses, masked_guess, spread

    if not most:
        return None
    precision = choose_precision(settings.precision, device)
    windows = some_windows(plan.val_windows)
    names = spread(sorted({window.recording_id for window in plan.val_windows}), RECORDINGS)

    def look(step: int, model: MaskedAutoencoder, measured: Measured) -> None:
        if not due(plan, step, most):
            return
        with gallery.passing_over_faults():
            guess = masked_guess(model, plan.masking, seed, precision)
            length, size = model.config.timepoints, settings.batch_size
            found = guesses(reader, windows, length, device, guess, size)
            vectors = cls_vectors(model, reader, names, precision)
            show_guesses(gallery, step, found, parcel_names(reader))
            show_parcels(gallery, step, measured)
            if vectors is not None:
                show_map(gallery, step, vectors, *groups_of(reader, names))

    return look


def due(plan: Plan, step: int, most: int) -> bool:
    """Whether the validation after `step` is drawn: so many, evenly spread, and the last one.

    The step alone decides, so that a training that was stopped draws the same ones.
    """
    before = max(
        (step - 1) // every * every for every in (plan.steps_per_epoch, plan.validate_every)
    )
    total = plan.total_steps
    return step == total or step * most // total > before * most // total


def some_windows(windows: Sequence[Window]) -> list[Window]:
    """Of different recordings as far as there are."""
    of_each = list({window.recording_id: window for window in windows}.values())
    few = min(WINDOWS, len(of_each))
    return [of_each[place * len(of_each) // few] for place in range(few)]


def parcel_names(reader: ShardReader) -> list[str]:
    """How the atlas calls its parcels."""
    return [str(name) for name in reader.parcels["name"]]


def groups_of(reader: ShardReader, names: Sequence[str]) -> tuple[str | None, list[Any]]:
    """The column that tells groups of recordings apart, and its values: site, else dataset."""
    for by in ("site", "dataset"):
        if by not in reader.table:
            continue
        values = reader.table.loc[list(names), by].fillna("not known").astype(str).tolist()
        if len(set(values)) > 1:
            return by, values
    return None, []


def show_guesses(gallery: Gallery, step: int, found: Any, names: Sequence[str]) -> None:
    """Traces and the scatter of all entries."""
    from ..report import training_figures as draw

    gallery.hang(
        "reconstruction",
        step,
        lambda: draw.reconstruction(found.traces, names, f"A val recording after step {step:,}"),
    )
    title = f"Val recordings, step {step:,}"
    gallery.hang("scatter", step, lambda: draw.scatter(found, title))


def show_parcels(gallery: Gallery, step: int, measured: Measured) -> None:
    """How R2 is spread over parcels."""
    from ..report import training_figures as draw

    parcel_r2 = measured.parcel_r2
    if parcel_r2 is not None and (parcel_r2 == parcel_r2).any():
        title = f"Parcels of the val split, step {step:,}"
        gallery.hang("parcels", step, lambda: draw.parcel_histogram(parcel_r2, title))


def show_map(
    gallery: Gallery, step: int, vectors: Any, colored_by: str | None, values: Sequence[Any]
) -> None:
    """Recordings by what CLS says of them; fewer than three make no map."""
    if len(vectors) < _FEWEST_ON_MAP:
        return
    from ..report import training_figures as draw
    from ..report.projection import two_dimensions

    def figure() -> Figure:
        places, axes_names = two_dimensions(vectors)
        title = f"CLS of {len(places)} val recordings, step {step:,}"
        return draw.map_of_recordings(places, axes_names, colored_by, values, title)

    gallery.hang("map", step, figure)
