"""4-D images volume by volume, so that no stage needs to hold a whole series as float32."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import NDArray

from .errors import DataError
from .geometry import Array, same_grid
from .images import (
    GZIP_LEVEL,
    LONGEST_HEADER,
    READ_ERRORS,
    Image,
    parse_header,
    read_image,
    unreadable,
)
from .scratch import make_array

Volume = NDArray[np.float32]


@dataclass(frozen=True)
class Series:
    """A 4-D NIfTI file on disk: its header now, its voxels when asked for."""

    path: Path
    header: nib.Nifti1Header
    shape: tuple[int, int, int, int]
    affine: Array  # (4, 4), voxel index to RAS mm

    @property
    def scaling(self) -> tuple[float | None, float | None]:
        """Slope and intercept of the stored values; None where the header has none."""
        slope, intercept = self.header.get_slope_inter()
        return slope, intercept

    def volumes(self) -> Iterator[Volume]:
        """Yield each volume (x, y, z) as float32, slopes applied."""
        return (_scaled(volume, *self.scaling) for volume in self.stored_volumes())

    def stored_volumes(self) -> Iterator[NDArray]:
        """Yield each volume (x, y, z) in the type and with the values that the file has."""
        x, y, z, count = self.shape
        dtype = self.header.get_data_dtype()
        size = x * y * z * dtype.itemsize
        try:
            with _open(self.path) as handle:
                handle.seek(int(self.header.get_data_offset()))
                for number in range(count):
                    raw = handle.read(size)
                    if len(raw) < size:
                        raise EOFError(f"it ends within volume {number} of {count}")
                    yield np.frombuffer(raw, dtype).reshape((x, y, z), order="F")
        except READ_ERRORS as error:
            raise unreadable(error, self.path) from error

    def in_mask(self, mask: NDArray[np.bool_], mem_gb: float | None = None) -> NDArray[np.float32]:
        """The voxels of `mask` (x, y, z) over time: (T, n), in the order of `data[mask]`.

        They must be finite: a single NaN would be in every mean and every fit.
        """
        values = make_array((self.shape[3], int(mask.sum())), np.float32, mem_gb)
        for number, volume in enumerate(self.volumes()):
            values[number] = volume[mask]
            if not np.isfinite(values[number].sum(dtype=np.float64)):
                raise DataError(
                    f"Volume {number} holds NaN or inf inside the brain",
                    file=self.path,
                    fix="delete it and rerun the stage that makes it",
                )
        return values


def open_series(path: str | Path) -> Series:
    """Read the header of a 4-D NIfTI file (a trailing fifth axis of one is dropped)."""
    path = Path(path)
    try:
        with _open(path) as handle:
            header = parse_header(handle.read(LONGEST_HEADER))
    except FileNotFoundError:
        raise DataError("The image does not exist", file=path, fix="restore it") from None
    except READ_ERRORS as error:
        raise unreadable(error, path) from error
    shape = tuple(header.get_data_shape())
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 4:
        raise DataError(
            f"A BOLD series has four dimensions, this has {len(shape)}: {shape}",
            file=path,
            fix="convert it to one 4-D file",
        )
    if header.get_data_dtype().kind not in "iuf":
        raise DataError(
            f"Its voxels are of type {header.get_data_dtype()}, not plain numbers",
            file=path,
            fix="convert it anew as a magnitude image",
        )
    return Series(path, header, shape, np.asarray(header.get_best_affine(), dtype=float))


def read_mask(path: str | Path, affine: Array, shape: tuple[int, ...]) -> Image:
    """The brain mask (x, y, z) of a series on the grid of `affine` and `shape`; never empty."""
    mask = read_image(path)
    if not same_grid(mask.affine, mask.data.shape, affine, shape):
        raise DataError(
            "The brain mask and the series lie on different grids",
            file=path,
            fix="delete both and rerun from `brainlm resample`",
        )
    if not (mask.data > 0).any():
        raise DataError(
            "The brain mask holds no voxel",
            file=path,
            fix="look at the registration of this recording; it has probably failed",
        )
    return Image(mask.data > 0, mask.affine)


@dataclass(frozen=True)
class HeldSeries:
    """A series in memory, its volumes at hand in any order, in the type that the file has.

    Scanners store 16-bit integers, which take half of float32.
    """

    stored: NDArray  # (x, y, z, T)
    affine: Array  # (4, 4), voxel index to RAS mm
    scaling: tuple[float | None, float | None] = (None, None)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (x, y, z, T)."""
        return self.stored.shape

    @property
    def data(self) -> NDArray[np.float32]:
        """All volumes as one float32 array (x, y, z, T): a copy, so for short runs."""
        return np.stack(list(self.volumes()), axis=-1)

    def volume(self, number: int) -> Volume:
        """One volume (x, y, z) as float32, slopes applied."""
        return _scaled(self.stored[..., number], *self.scaling)

    def volumes(self) -> Iterator[Volume]:
        """Yield each volume (x, y, z) as float32, slopes applied."""
        return (self.volume(number) for number in range(self.shape[3]))


def read_bold(path: str | Path, mem_gb: float | None = None) -> HeldSeries:
    """Read a whole 4-D series without NaN or inf, in a process that may take `mem_gb`."""
    series = open_series(path)
    dtype = series.header.get_data_dtype()
    held = np.dtype(np.float32) if dtype.itemsize > 4 else dtype.newbyteorder("=")
    stored = make_array(series.shape, held, mem_gb, order="F")
    bad = np.zeros(series.shape[3], dtype=bool)
    for number, volume in enumerate(series.stored_volumes()):
        stored[..., number] = volume
        bad[number] = not np.isfinite(_scaled(volume, *series.scaling).sum(dtype=np.float64))
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {len(bad)} volumes hold NaN or inf "
            f"(first: volume {int(bad.argmax())})",
            file=path,
            fix="convert it anew from DICOM, or exclude the run",
        )
    return HeldSeries(stored, series.affine, series.scaling)


def write_series(
    path: Path,
    volumes: Iterable[Volume],
    shape: tuple[int, ...],
    affine: Array,
    *,
    tr: float,
    in_mni: bool = True,
) -> None:
    """Write float32 volumes one after the other as a 4-D `.nii.gz`, (x, y, z, T).

    `path` is the temporary name that the caller was given. The gzip header holds no time.
    `in_mni` tells viewers that the coordinates are MNI's, not the scanner's.
    """
    code = "mni" if in_mni else "scanner"
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape(shape)
    header.set_xyzt_units("mm", "sec")
    header.set_qform(affine, code=code)
    header.set_sform(affine, code=code)
    header.set_zooms((*np.sqrt((affine[:3, :3] ** 2).sum(axis=0)), tr))
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    with (
        path.open("wb") as handle,
        igzip.IGzipFile(
            filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=handle, mtime=0
        ) as packed,
    ):
        packed.write(header.binaryblock + b"\0\0\0\0")
        for volume in volumes:
            packed.write(np.asarray(volume, dtype="<f4").tobytes(order="F"))


def in_volumes(
    series: NDArray[np.float32], mask: NDArray[np.bool_], volumes: NDArray[np.intp]
) -> Iterator[Volume]:
    """These rows of `series` (T, n) as volumes (x, y, z), 0 outside the mask."""
    for number in volumes:
        volume = np.zeros(mask.shape, dtype=np.float32)
        volume[mask] = series[number]
        yield volume


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as handle:
        packed = handle.read(2) == b"\x1f\x8b"
    opened: IO[bytes] = igzip.open(path, "rb") if packed else path.open("rb")
    return opened


def _scaled(volume: NDArray, slope: float | None, intercept: float | None) -> Volume:
    """Apply the header's slope and intercept, in double precision as nibabel does."""
    if slope in (None, 1.0) and intercept in (None, 0.0):
        return volume.astype(np.float32)
    scaled = volume.astype(np.float64) * (slope or 1.0) + (intercept or 0.0)
    return scaled.astype(np.float32)
