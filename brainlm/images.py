"""Reading and writing NIfTI, with the checks that raw data needs."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from numpy.typing import NDArray

from .errors import BrainLMError, DataError, ResourceError
from .files import atomic_path
from .geometry import Array, template_grid
from .templates import BUNDLED, template_file

#: Compression level of isa-l: about ten times faster than zlib for a few per cent of size.
GZIP_LEVEL = 1

#: Bytes that hold the header of any NIfTI file.
LONGEST_HEADER = 540

_NIFTI_1 = 348
#: The fields of a NIfTI-1 header that nibabel checks: sizeof_hdr, the first of dim (which tells the
#: order of bytes), datatype and bitpix, pixdim and vox_offset, qform_code and sform_code, magic.
_FIELDS = (
    slice(0, 4),
    slice(40, 42),
    slice(70, 74),
    slice(76, 112),
    slice(252, 256),
    slice(344, 348),
)
#: What these held in headers that passed.
_SOUND: set[bytes | None] = set()
_REMEMBERED = 4096

READ_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    isal_zlib.error,  # type: ignore[assignment]
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    nib.wrapstruct.WrapStructError,
)


@dataclass(frozen=True)
class Image:
    """Voxels with their place in the world."""

    data: NDArray  # (x, y, z) or (x, y, z, time); float32, or int16 for labels
    affine: Array  # (4, 4), voxel index to RAS mm

    @property
    def zooms(self) -> tuple[float, float, float]:
        """Voxel size, mm."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)


def parse_header(raw: bytes) -> nib.Nifti1Header:
    """The NIfTI-1 or NIfTI-2 header at the beginning of an uncompressed file (540 bytes do).

    Raises `ValueError` with what is wrong; the caller knows the file.
    """
    sizes = {int.from_bytes(raw[:4], "little"), int.from_bytes(raw[:4], "big")}
    for size, kind in ((_NIFTI_1, nib.Nifti1Header), (540, nib.Nifti2Header)):
        if size in sizes:
            if len(raw) < size:
                raise ValueError("the file ends within its header")
            try:
                return _checked(kind(raw[:size], check=False), raw[:size])
            except READ_ERRORS as error:
                raise ValueError(f"the NIfTI header is not valid: {error}") from None
    raise ValueError("this is not a NIfTI file")


def _checked(header: nib.Nifti1Header, raw: bytes) -> nib.Nifti1Header:
    """The header after nibabel's checks; they take longer than all else in reading one.

    In NIfTI-1 they look at `_FIELDS` alone, and the runs of a dataset are alike in these: what
    they let pass unchanged once, they let pass again.
    """
    fields = b"".join(raw[part] for part in _FIELDS) if len(raw) == _NIFTI_1 else None
    if fields not in _SOUND:
        header.check_fix()
        if fields and header.binaryblock == raw and len(_SOUND) < _REMEMBERED:
            _SOUND.add(fields)
    return header


def unreadable(
    error: Exception,
    path: Path,
    *,
    where: str = "",
    fix: str = "it is truncated or corrupt; copy it anew from its source",
) -> BrainLMError:
    """What to raise for an image that could not be read: the data's fault or the machine's.

    An error number comes from the operating system (a failing disk, a network file system that
    hangs, no permission): the same file may be read next time, so nothing is given up on it.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return ResourceError(
            f"The file could not be read: {where}{error.strerror}",
            file=path,
            fix="check its permissions and the file system that it lies on; then rerun",
        )
    return DataError(f"The image cannot be read: {where}{error}", file=path, fix=fix)


def read_image(path: str | Path) -> Image:
    """Read a whole NIfTI file as float32, slopes applied; any fault names the file."""
    path = Path(path)
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = igzip.decompress(raw)
        header = parse_header(raw[:LONGEST_HEADER])
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        image = kind.from_bytes(raw)
        data = image.get_fdata(dtype=np.float32, caching="unchanged")
    except FileNotFoundError:
        raise DataError("The image does not exist", file=path, fix="restore it") from None
    except READ_ERRORS as error:
        raise unreadable(error, path) from error
    return Image(data, np.asarray(image.affine, dtype=float))


def write_image(
    path: str | Path,
    data: NDArray,
    affine: Array,
    *,
    tr: float | None = None,
    in_mni: bool = False,
    intent: str | None = None,
    atomic: bool = True,
) -> None:
    """Write `.nii.gz`, float or integer as given; `tr` in s for 4-D. Equal data, equal bytes.

    `in_mni` tells viewers that the coordinates are MNI's, not the scanner's; `intent` is NIfTI's
    word for what the values are. With `atomic=False` the caller already gave a temporary path.
    """
    if atomic:
        with atomic_path(path) as temporary:
            write_image(temporary, data, affine, tr=tr, in_mni=in_mni, intent=intent, atomic=False)
        return
    image = nib.Nifti1Image(np.asarray(data), affine)
    image.header.set_xyzt_units("mm", "sec")
    code = "mni" if in_mni else "scanner"
    image.header.set_qform(affine, code=code)
    image.header.set_sform(affine, code=code)
    if intent is not None:
        image.header.set_intent(intent)
    if tr is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], tr))
    # The gzip header holds a clock time unless told otherwise.
    with (
        Path(path).open("wb") as handle,
        igzip.IGzipFile(
            filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=handle, mtime=0
        ) as packed,
    ):
        image.to_stream(packed)


def load_template(name: str, contrast: str, zoom: float | None) -> Image:
    """The template's `T1w`, `GM`, `WM` or `brain` map (0 to 1) on a grid of `zoom` mm, in RAS.

    Without `zoom`, on the file's own grid. On a fetched template the grid holds the world's
    origin, so that at 2 mm it is FSL's, on which A424 is drawn.
    """
    full = _upright(read_image(template_file(name, contrast)))
    data = full.data / full.data.max()
    if contrast == "brain":
        data = (data > 0).astype(np.float32)
    own = full.zooms[0]
    if zoom is None or zoom == own:
        return Image(data, full.affine)
    from scipy.ndimage import affine_transform, gaussian_filter

    affine, shape = template_grid(full.affine, data.shape, zoom, with_origin=name != BUNDLED)
    # Blur to the new voxel's size first, so that thin structures do not alias.
    smooth = gaussian_filter(data, sigma=np.sqrt(max(zoom**2 - own**2, 0)) / 2.355 / own)
    step = np.linalg.inv(full.affine) @ affine
    moved = affine_transform(smooth, step[:3, :3], step[:3, 3], shape, order=1)
    return Image(moved.astype(np.float32), affine)


def _upright(image: Image) -> Image:
    """The same voxels stored from left to right, back to front, bottom to top."""
    data, affine = image.data, image.affine.copy()
    for axis in range(3):
        if affine[axis, axis] < 0:
            data = np.flip(data, axis)
            affine[axis, 3] += affine[axis, axis] * (data.shape[axis] - 1)
            affine[axis, axis] *= -1
    return Image(data, affine)
