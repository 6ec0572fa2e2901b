"""Reading and writing NIfTI, with the checks that raw data needs."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from numpy.typing import NDArray

from .errors import BrainLMError, DataError, InputError, ResourceError
from .files import atomic_path
from .geometry import Array, template_grid

#: Compression level of isa-l: about ten times faster than zlib for a few per cent of size.
GZIP_LEVEL = 1

#: Bytes that hold the header of any NIfTI file.
LONGEST_HEADER = 540

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

_TEMPLATE_FILES = {
    "T1w": "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
    "GM": "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz",
    "WM": "mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz",
    "brain": "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",  # where the T1w is not 0
}


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
    for size, kind in ((348, nib.Nifti1Header), (540, nib.Nifti2Header)):
        if size in sizes:
            if len(raw) < size:
                raise ValueError("the file ends within its header")
            try:
                return kind(raw[:size])
            except READ_ERRORS as error:
                raise ValueError(f"the NIfTI header is not valid: {error}") from None
    raise ValueError("this is not a NIfTI file")


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


def load_template(name: str, contrast: str, zoom: float) -> Image:
    """The template's `T1w`, `GM`, `WM` or `brain` map (0 to 1) on a grid of `zoom` mm.

    Read from the files that nilearn ships, without importing nilearn (1.5 s).
    """
    if name != "MNI152NLin2009aSym":
        raise InputError(f"There is no template {name!r} here", fix="use MNI152NLin2009aSym")
    spec = find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise InputError("nilearn is not installed", fix="pip install 'brainlm[imaging]'")
    path = Path(spec.origin).parent / "datasets" / "data" / _TEMPLATE_FILES[contrast]
    full = read_image(path)
    data = full.data / full.data.max()
    if contrast == "brain":
        data = (data > 0).astype(np.float32)
    if zoom == 1:
        return Image(data, full.affine)
    from scipy.ndimage import affine_transform, gaussian_filter

    affine, shape = template_grid(full.affine, data.shape, zoom)
    # Blur to the new voxel's size first, so that thin structures do not alias.
    smooth = gaussian_filter(data, sigma=np.sqrt(max(zoom**2 - 1, 0)) / 2.355)
    step = np.linalg.inv(full.affine) @ affine
    moved = affine_transform(smooth, step[:3, :3], step[:3, 3], shape, order=1)
    return Image(moved.astype(np.float32), affine)
