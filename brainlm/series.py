"""4-D images volume by volume, so that no stage needs to hold a whole series in memory."""

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
from .geometry import Array
from .images import GZIP_LEVEL, LONGEST_HEADER, READ_ERRORS, Image, parse_header, unreadable

Volume = NDArray[np.float32]


@dataclass(frozen=True)
class Series:
    """A 4-D NIfTI file on disk: its header now, its voxels when asked for."""

    path: Path
    header: nib.Nifti1Header
    shape: tuple[int, int, int, int]
    affine: Array  # (4, 4), voxel index to RAS mm

    def volumes(self) -> Iterator[Volume]:
        """Yield each volume (x, y, z) as float32, slopes applied."""
        x, y, z, count = self.shape
        dtype = self.header.get_data_dtype()
        slope, intercept = self.header.get_slope_inter()
        size = x * y * z * dtype.itemsize
        try:
            with _open(self.path) as handle:
                handle.seek(int(self.header.get_data_offset()))
                for number in range(count):
                    raw = handle.read(size)
                    if len(raw) < size:
                        raise EOFError(f"it ends within volume {number} of {count}")
                    volume = np.frombuffer(raw, dtype).reshape((x, y, z), order="F")
                    yield _scaled(volume, slope, intercept)
        except READ_ERRORS as error:
            raise unreadable(error, self.path) from error

    def in_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The voxels of `mask` (x, y, z) over time: (T, n), in the order of `data[mask]`."""
        values = np.empty((self.shape[3], int(mask.sum())), dtype=np.float32)
        for number, volume in enumerate(self.volumes()):
            values[number] = volume[mask]
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
    return Series(path, header, shape, np.asarray(header.get_best_affine(), dtype=float))


def read_bold(path: str | Path) -> Image:
    """Read a whole 4-D series as float32, without NaN or inf; no second copy is held."""
    series = open_series(path)
    data = np.empty(series.shape, dtype=np.float32, order="F")
    for number, volume in enumerate(series.volumes()):
        data[..., number] = volume
    bad = ~np.isfinite([data[..., t].sum(dtype=np.float64) for t in range(data.shape[3])])
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {data.shape[3]} volumes hold NaN or inf "
            f"(first: volume {int(bad.argmax())})",
            file=path,
            fix="convert it anew from DICOM, or exclude the run",
        )
    return Image(data, series.affine)


def write_series(
    path: Path, volumes: Iterable[Volume], shape: tuple[int, ...], affine: Array, *, tr: float
) -> None:
    """Write float32 volumes in MNI space one after the other as a 4-D `.nii.gz`, (x, y, z, T).

    `path` is the temporary name that the caller was given. The gzip header holds no time.
    """
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape(shape)
    header.set_xyzt_units("mm", "sec")
    header.set_qform(affine, code="mni")
    header.set_sform(affine, code="mni")
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
