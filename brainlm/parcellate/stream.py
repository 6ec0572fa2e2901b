"""Reading a 4-D NIfTI file one volume at a time, so that the series never fills the memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from numpy.typing import NDArray

from ..errors import BrainLMError, DataError
from ..geometry import Array
from ..images import LONGEST_HEADER, parse_header, unreadable

#: Smaller voxels there are none.
_SMALLEST_MM3 = 1e-6
_READ_ERRORS: tuple[type[Exception], ...] = (
    EOFError,
    OSError,
    ValueError,
    isal_zlib.error,  # type: ignore[assignment]
    nib.spatialimages.HeaderDataError,
)


@dataclass(frozen=True)
class VolumeStream:
    """A series to iterate over; each volume is a flat array in the file's voxel order."""

    path: Path
    shape: tuple[int, int, int]
    n_volumes: int
    affine: Array  # (4, 4), voxel index to RAS mm
    dtype: np.dtype
    offset: int  # bytes before the first voxel
    slope: float | None  # None: the stored numbers are the values
    intercept: float
    watch: Callable[[Iterable[NDArray]], Iterable[NDArray]] = iter  # sees each volume go by

    def __iter__(self) -> Iterator[NDArray]:
        """Yield each volume, (x * y * z,), first axis fastest (Fortran order).

        The numbers are as stored (the file's dtype and byte order) where there is no
        slope, else float64 with slope and intercept applied. The buffer is used again for
        the next volume: copy what you keep.
        """
        return map(self._scaled, self.watch(self._stored()))

    def at(self, voxels: NDArray[np.intp]) -> Iterator[NDArray]:
        """Yield the values of these `voxels` (places in the flat volume) in each volume.

        Slope and intercept are applied to them alone, which is why this is quicker than picking
        them from whole volumes. The buffer is used again: copy what you keep.
        """
        picked = np.empty(len(voxels), dtype=self.dtype)
        for volume in self.watch(self._stored()):
            np.take(volume, voxels, out=picked, mode="clip")  # "raise" would copy
            yield self._scaled(picked)

    def _scaled(self, stored: NDArray) -> NDArray:
        if self.slope is None:
            return stored
        return stored * np.float64(self.slope) + self.intercept

    def _stored(self) -> Iterator[NDArray]:
        """Yield each volume as the file holds it."""
        volume = np.empty(int(np.prod(self.shape)), dtype=self.dtype)
        with open_bytes(self.path) as handle:
            handle.read(self.offset)
            for number in range(self.n_volumes):
                where = f"volume {number} of {self.n_volumes}"
                fill(volume, handle, self.path, where)
                yield volume


def fill(array: NDArray, handle: Any, path: Path, where: str) -> None:
    """Fill a contiguous `array` from `handle`; errors name `path` and say `where` in the data."""
    buffer = array.reshape(-1).view(np.uint8)
    try:
        done = 0
        while done < len(buffer) and (got := handle.readinto(buffer[done:])):
            done += got
    except _READ_ERRORS as error:
        raise _broken(path, error, where=f"in {where}: ") from error
    if done < len(buffer):
        raise _broken(path, EOFError(f"it ends within {where}"))


def open_series(path: str | Path) -> VolumeStream:
    """Read the header of a 4-D `.nii` or `.nii.gz` file and prepare to stream its volumes."""
    path = Path(path)
    try:
        with open_bytes(path) as handle:
            header = parse_header(handle.read(LONGEST_HEADER))
        slope, intercept = header.get_slope_inter()
    except FileNotFoundError:
        raise DataError("The image does not exist", file=path, fix="restore it") from None
    except _READ_ERRORS as error:
        raise _broken(path, error) from error
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) != 4:
        raise DataError(
            f"A series has four dimensions, this has {len(shape)}: {shape}",
            file=path,
            fix="take the file of the series, not of one volume",
        )
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise DataError(
            f"Voxels of type {dtype} cannot be averaged",
            file=path,
            fix="convert the series to integers or floats",
        )
    affine = np.asarray(header.get_best_affine(), dtype=float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < _SMALLEST_MM3:
        raise DataError(
            "The header does not say where the voxels lie: its affine is singular",
            file=path,
            fix="convert the series anew, or copy the header of an image on the same grid",
        )
    as_stored = slope is None or (slope == 1 and not intercept)
    return VolumeStream(
        path=path,
        shape=shape[:3],
        n_volumes=shape[3],
        affine=affine,
        dtype=dtype,
        offset=int(header.get_data_offset()),
        slope=None if as_stored else float(slope),
        intercept=float(intercept or 0),
    )


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[Any]:
    """The file's uncompressed bytes, whatever its name says."""
    with path.open("rb") as plain:
        packed = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        if not packed:
            yield plain
            return
        with igzip.IGzipFile(fileobj=plain, mode="rb") as unpacked:
            yield unpacked


def _broken(path: Path, error: Exception, *, where: str = "") -> BrainLMError:
    fix = "it is truncated or corrupt; delete it and rerun the stage that makes it"
    return unreadable(error, path, where=where, fix=fix)
