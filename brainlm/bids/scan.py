"""What one image file is: its header, whether its bytes are whole, and their hash.

Nothing is loaded as an image: the file is read once in pieces, and each piece is hashed,
unpacked, counted and looked through for NaN and for volumes without contrast, then forgotten.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from ..geometry import Array
from ..images import parse_header
from ..provenance import Ends, read_ends, sha256_file

_PIECE = 1 << 17
_LONGEST_HEADER = 540
_READ_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,
    isal_zlib.error,  # type: ignore[assignment]
    nib.spatialimages.HeaderDataError,
)

#: Seconds per unit of the header's time code (NIfTI-1 standard, xyzt_units).
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}


@dataclass
class Scan:
    """Facts about an image file; `faults` forbid its use, `notes` do not."""

    fingerprint: str | None = None  # SHA-256, or fast:SIZE:MTIME_NS:ENDS
    shape: tuple[int, ...] = ()
    zooms: tuple[float, ...] = ()  # mm
    affine: Array | None = None
    header_tr: float | None = None  # s; None where the header does not say
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def scan_image(path: Path, *, full: bool) -> Scan:
    """Look at one `.nii` or `.nii.gz` file; never raises for what is wrong with it.

    `full` reads and hashes the whole file. Otherwise only the header and the file's end are
    read: truncation is still found, NaN and empty volumes are not.
    """
    scan = Scan()
    try:
        ends = read_ends(path)
        if ends.size == 0:
            scan.faults.append("the file is empty (0 bytes)")
            scan.fingerprint = hashlib.sha256(b"").hexdigest() if full else "fast:0"
            return scan
        header = _read_header(ends.head)
        _describe(header, scan)
        if not scan.faults and (full or not _end_fits(ends, header)):
            _read_through(path, header, scan)
        if full:
            scan.fingerprint = scan.fingerprint or sha256_file(path)
        else:
            scan.fingerprint = ends.fingerprint()
    except FileNotFoundError:
        scan.faults.append("the file is not there (a link to content that was not fetched?)")
    except _READ_ERRORS as error:
        scan.faults.append(f"the file cannot be read: {error}")
        with contextlib.suppress(OSError):  # what cannot be opened has no hash either
            scan.fingerprint = sha256_file(path) if full else None
    return scan


def _read_header(head: bytes) -> nib.Nifti1Header:
    """The header in a file's first bytes, packed or not."""
    start = bytearray()
    for piece in _unpacked(io.BytesIO(head), None, _LONGEST_HEADER):
        start += piece
        if len(start) >= _LONGEST_HEADER:
            break
    return parse_header(bytes(start))


def _describe(header: nib.Nifti1Header, scan: Scan) -> None:
    """Shape, voxel size, place and TR from the header, and what is wrong with them."""
    scan.shape = tuple(int(n) for n in header.get_data_shape())
    while len(scan.shape) > 4 and scan.shape[-1] == 1:
        scan.shape = scan.shape[:-1]
    header.get_slope_inter()  # raises for slopes that are no numbers
    if header.get_data_dtype().kind not in "iuf":
        scan.faults.append(f"voxels of type {header.get_data_dtype()} are not a magnitude image")
    if min(scan.shape, default=0) < 1:
        scan.faults.append(f"the header says that the image is empty: {scan.shape}")
        return
    affine = np.asarray(header.get_best_affine(), dtype=float)
    scan.zooms = tuple(float(z) for z in np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))
    if not _spans_space(affine, np.array(scan.zooms)):
        scan.faults.append("the affine is singular: the voxels have no place in the world")
        return
    if not all(0.3 <= zoom <= 10 for zoom in scan.zooms):
        sizes = " x ".join(f"{zoom:.3g}" for zoom in scan.zooms)
        scan.faults.append(f"the affine is wrong: voxels of {sizes} mm are not believable")
    scan.affine = affine
    length, time = _units(header)
    if length not in ("mm", "unknown"):
        scan.notes.append(f"the header gives lengths in {length}, but they are believable as mm")
    _compare_forms(header, scan)
    if len(scan.shape) == 4:
        step = float(header["pixdim"][4])
        if np.isfinite(step) and step > 0 and time in _SECONDS:
            scan.header_tr = step * _SECONDS[time]


def _spans_space(affine: Array, zooms: Array) -> bool:
    """Whether the three voxel axes, of lengths `zooms`, point in three directions."""
    if not np.isfinite(affine).all() or (zooms <= 0).any():
        return False
    (a, b, c), (d, e, f), (g, h, i) = (affine[:3, :3] / zooms).tolist()
    return abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)) >= 0.1


def _units(header: nib.Nifti1Header) -> tuple[str, str]:
    """The header's units of length and time; a code of no meaning is no more than unknown."""
    try:
        length, time = header.get_xyzt_units()
    except KeyError:
        return "unknown", "unknown"
    return str(length), str(time)


def _compare_forms(header: nib.Nifti1Header, scan: Scan) -> None:
    """The two ways in which a header may place the image must not contradict each other."""
    if not header["sform_code"] and not header["qform_code"]:
        scan.notes.append("the header does not place the image (no sform, no qform)")
    if not header["sform_code"] or not header["qform_code"]:
        return
    sform, qform = header.get_sform(), header.get_qform()
    if np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0:
        scan.faults.append("sform and qform disagree about which side is left")
    elif np.abs(sform - qform).max() > 1:
        scan.notes.append("sform and qform place the image differently; the sform is used")


def _end_fits(ends: Ends, header: nib.Nifti1Header) -> bool:
    """Whether the file ends as its header says: cheap, and blind to damage in the middle.

    A gzip file ends with its unpacked length modulo 2**32 (RFC 1952, ISIZE).
    """
    if ends.head[:2] == b"\x1f\x8b":
        last = (ends.head + ends.tail)[-4:] if len(ends.tail) < 4 else ends.tail[-4:]
        return int.from_bytes(last, "little") == _expected_bytes(header) % 2**32
    return ends.size >= _expected_bytes(header)


def _expected_bytes(header: nib.Nifti1Header) -> int:
    voxels = math.prod(int(n) for n in header.get_data_shape())
    return int(header.get_data_offset()) + voxels * header.get_data_dtype().itemsize


def _read_through(path: Path, header: nib.Nifti1Header, scan: Scan) -> None:
    """Hash and unpack the whole file; check its length, and each volume for what it holds."""
    digest = hashlib.sha256()
    ranges = _Ranges(scan.shape, header.get_data_dtype())
    offset, expected = int(header.get_data_offset()), _expected_bytes(header)
    seen = 0
    try:
        with path.open("rb") as handle:
            for piece in _unpacked(handle, digest):
                ranges.add(piece[max(0, offset - seen) : max(0, expected - seen)])
                seen += len(piece)
    except _READ_ERRORS as error:
        kept = max(0, seen - offset) // ranges.volume_bytes
        scan.faults.append(
            f"the gzip file is truncated or corrupt ({error}); "
            f"{kept} of {_n_volumes(scan.shape)} volumes can be read"
        )
        return
    scan.fingerprint = digest.hexdigest()
    if seen < expected:
        kept = max(0, seen - offset) // ranges.volume_bytes
        scan.faults.append(
            f"the file is shorter than its header says: {kept} of "
            f"{_n_volumes(scan.shape)} volumes are there"
        )
    elif seen > expected:
        scan.notes.append(f"{seen - expected} bytes follow the last voxel; they are ignored")
    for what, bad in (("NaN or inf", ranges.not_finite()), ("one value only", ranges.flat())):
        if bad.size and (what == "NaN or inf" or seen >= expected):
            scan.faults.append(
                f"{bad.size} of {_n_volumes(scan.shape)} volumes hold {what} "
                f"(first: volume {bad[0]})"
            )


class _Ranges:
    """The lowest and highest raw value of each volume, from pieces that respect no boundary."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype):
        """Prepare for the volumes of an image of `shape` (x, y, z[, T]) stored as `dtype`."""
        self._dtype = dtype
        self._voxels = int(np.prod(shape[:3], dtype=np.int64))
        self.volume_bytes = self._voxels * dtype.itemsize
        self._lowest = np.full(_n_volumes(shape), np.inf)
        self._highest = np.full(_n_volumes(shape), -np.inf)
        self._rest, self._count = b"", 0

    def add(self, piece: bytes) -> None:
        """Take the next bytes of the voxels."""
        raw = self._rest + piece
        whole = len(raw) // self._dtype.itemsize * self._dtype.itemsize
        values, self._rest = np.frombuffer(raw[:whole], self._dtype), raw[whole:]
        while values.size:
            volume, within = divmod(self._count, self._voxels)
            part, values = np.split(values, [self._voxels - within])
            self._count += part.size
            if volume < len(self._lowest):
                self._lowest[volume] = np.minimum(self._lowest[volume], part.min())
                self._highest[volume] = np.maximum(self._highest[volume], part.max())

    def not_finite(self) -> NDArray[np.int_]:
        """The volumes read that hold NaN or inf."""
        unread = (self._lowest == np.inf) & (self._highest == -np.inf)
        return np.flatnonzero(~(np.isfinite(self._lowest) & np.isfinite(self._highest) | unread))

    def flat(self) -> NDArray[np.int_]:
        """The volumes of which all voxels are equal."""
        return np.flatnonzero(self._lowest == self._highest)


def _n_volumes(shape: tuple[int, ...]) -> int:
    return shape[3] if len(shape) > 3 else 1


def _unpacked(handle: Any, digest: Any, size: int = _PIECE) -> Iterator[bytes]:
    """The uncompressed bytes, from pieces of `size`; `digest` sees the raw ones.

    The CRC of each gzip member is checked when its end is reached.
    """
    piece = handle.read(size)
    packed = piece[:2] == b"\x1f\x8b"
    member = isal_zlib.decompressobj(wbits=31)
    while piece:
        if digest is not None:
            digest.update(piece)
        while packed and piece:
            if member.eof:
                piece = piece.lstrip(b"\0")  # padding between members is allowed
                if not piece:
                    break
                member = isal_zlib.decompressobj(wbits=31)
            yield member.decompress(piece)
            piece = member.unused_data if member.eof else b""
        if not packed:
            yield piece
        piece = handle.read(size)
    if packed and not member.eof:
        raise EOFError("the stream ends early")
