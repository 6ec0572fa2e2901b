from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import isal.igzip
import nibabel as nib
import numpy as np
import pytest

from brainlm.errors import DataError, ResourceError
from brainlm.images import load_template, parse_header, read_image, write_image
from brainlm.parcellate import stream
from brainlm.series import open_series, read_bold

AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])


def test_write_then_read(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(5, 6, 7, 8)).astype(np.float32)
    write_image(tmp_path / "x.nii.gz", data, AFFINE, tr=1.5)
    image = read_bold(tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(image.data, data)
    np.testing.assert_allclose(image.affine, AFFINE)
    header = nib.load(tmp_path / "x.nii.gz").header
    assert header.get_zooms() == pytest.approx((2, 2, 2, 1.5))
    assert header.get_xyzt_units() == ("mm", "sec")


def test_equal_data_give_equal_bytes_whatever_the_name(tmp_path: Path) -> None:
    data = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    write_image(tmp_path / "a.nii.gz", data, AFFINE)
    write_image(tmp_path / "b.nii.gz", data, AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_slopes_and_integer_types_are_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), AFFINE)
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "x.nii")
    expected = nib.load(tmp_path / "x.nii").get_fdata()
    np.testing.assert_allclose(read_image(tmp_path / "x.nii").data, expected)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<i2", ">i2", ">f4"])
def test_both_versions_and_byte_orders_are_read(tmp_path: Path, kind: type, order: str) -> None:
    data = np.arange(120).reshape(2, 3, 4, 5).astype(order)
    header = kind.header_class(endianness="little" if order[0] == "<" else "big")
    nib.save(kind(data, AFFINE, header), tmp_path / "x.nii.gz")
    for image in (read_image(tmp_path / "x.nii.gz"), read_bold(tmp_path / "x.nii.gz")):
        np.testing.assert_array_equal(image.data, data)
        np.testing.assert_allclose(image.affine, AFFINE)


@pytest.mark.parametrize(
    "read",
    [
        read_image,
        read_bold,
        lambda path: list(open_series(path).volumes()),
        lambda path: list(stream.open_series(path)),
    ],
)
def test_a_failing_disk_is_not_held_against_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    """Data errors give a recording up for good; a network file system may work again."""
    path = tmp_path / "x_bold.nii.gz"
    write_image(path, np.zeros((4, 4, 4, 5), np.float32), AFFINE)

    def fail(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(isal.igzip.IGzipFile, "read", fail)
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(ResourceError, match="Stale file handle") as caught:
        read(path)
    assert caught.value.file == str(path) and caught.value.fix


@pytest.mark.parametrize("keep", [10, 200, 0.5, 0.999])
def test_truncated_files_are_data_errors_that_name_the_file(tmp_path: Path, keep: float) -> None:
    data = np.random.default_rng(0).normal(size=(9, 9, 9, 9)).astype(np.float32)
    path = tmp_path / "x_bold.nii.gz"
    write_image(path, data, AFFINE)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep > 1 else len(whole) * keep)])
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert caught.value.file == str(path)


def test_missing_empty_and_nonsense_files(tmp_path: Path) -> None:
    (tmp_path / "empty.nii.gz").touch()
    (tmp_path / "text.nii.gz").write_text("not an image")
    for name in ("missing.nii.gz", "empty.nii.gz", "text.nii.gz"):
        with pytest.raises(DataError):
            read_image(tmp_path / name)


def test_bold_checks(tmp_path: Path) -> None:
    write_image(tmp_path / "3d.nii.gz", np.ones((3, 3, 3), np.float32), AFFINE)
    with pytest.raises(DataError, match="four dimensions"):
        read_bold(tmp_path / "3d.nii.gz")
    data = np.ones((3, 3, 3, 6), np.float32)
    write_image(tmp_path / "5d.nii.gz", data[..., None], AFFINE)
    assert read_bold(tmp_path / "5d.nii.gz").data.shape == (3, 3, 3, 6)
    data[1, 1, 1, 4] = np.nan
    write_image(tmp_path / "nan.nii.gz", data, AFFINE)
    with pytest.raises(DataError, match=r"1 of 6 volumes.*volume 4"):
        read_bold(tmp_path / "nan.nii.gz")


@pytest.mark.parametrize("zoom", [1, 2, 4])
def test_template_sits_where_it_should(zoom: float) -> None:
    image = load_template("MNI152NLin2009aSym", "GM", zoom)
    assert image.zooms == pytest.approx((zoom, zoom, zoom))
    assert image.data.min() >= 0 and image.data.max() <= 1
    # Its grey matter is symmetric about x = 0 in world space, within interpolation.
    weight = image.data / image.data.sum()
    index = np.stack(np.meshgrid(*map(np.arange, image.data.shape), indexing="ij"))
    world = np.tensordot(image.affine[:3, :3], index, 1) + image.affine[:3, 3, None, None, None]
    assert abs((world[0] * weight).sum()) < 0.5


def test_a_header_is_checked_as_if_it_were_the_first(tmp_path):
    """What passed once is not checked again: no field that nibabel looks at may be left out."""
    nib.save(nib.Nifti1Image(np.zeros((2, 3, 4, 5), np.int16), np.eye(4)), tmp_path / "x.nii")
    good = (tmp_path / "x.nii").read_bytes()[:348]
    assert parse_header(good) == nib.Nifti1Header(good)
    told = 0
    for place in range(4, 348):  # by the first four we know that it is NIfTI at all
        for value in (0, 7, 255):
            changed = good[:place] + bytes([value]) + good[place + 1 :]
            try:
                expected = nib.Nifti1Header(changed)
            except (nib.spatialimages.HeaderDataError, ValueError):
                with pytest.raises(ValueError):
                    parse_header(changed)
                told += 1
            else:
                assert parse_header(changed).binaryblock == expected.binaryblock
    assert told > 10
