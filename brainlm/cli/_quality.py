"""What the page of a recording shows, read from the files that its stages left."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ._stage import RecordingRun

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ..images import Image
    from ..report.qc_data import QCData
    from ..report.quality.recording import RecordingPage, Volumes
    from ..tissues import Tissues


def page_of(run: RecordingRun, data: QCData, figure: bytes) -> RecordingPage:
    """The page of a recording whose figure shows `data`."""
    import pandas as pd

    from ..atlas.table import read_table
    from ..report.quality.measures import by_network, connectivity
    from ..report.quality.recording import RecordingPage

    from_images = run.recording.kind in (None, "volume")
    coverage = pd.read_csv(run.path("coverage"), sep="\t", na_values="n/a")
    table = read_table(run.source(run.path("atlas_table")))
    order, networks = by_network(table)
    series = pd.read_parquet(run.input("timeseries")).to_numpy()
    numbers: dict[str, Any] = {**data.summary(), **_of_motion(data)}
    volumes, components = None, []
    if from_images:
        done = _about(run.path("carpet"))
        numbers |= _of_denoising(done, len(data.confounds))
        volumes, further = _volumes(run)
        numbers |= further
        if run.params["denoise"]["method"] == "aroma":
            components = _components(run, volumes)
            removed = sum(row["noise"] for row in components)
            numbers |= {"Components": len(components), "ComponentsRemoved": removed}
    judge = _about(run.path("aroma_metrics")).get("Rule") if components else None
    return RecordingPage(
        recording_id=run.recording.id,
        figure=figure,
        numbers=numbers,
        notes=_notes(run),
        coverage=coverage,
        min_coverage=data.min_coverage,
        atlas=data.atlas,
        correlations=connectivity(series)[order][:, order],
        networks=networks,
        volumes=volumes,
        components=components,
        rule=f"Noise by the study's own rule: {judge}." if judge else "",
    )


def _about(path: Path) -> Mapping[str, Any]:
    from ..provenance import read_sidecar

    return read_sidecar(path)


def _of_motion(data: QCData) -> dict[str, Any]:
    import numpy as np

    count = len(data.confounds)
    found: dict[str, Any] = {"Volumes": count, "Minutes": round(count * data.tr / 60, 2)}
    if data.motion_known:
        found["OutlierShare"] = round(len(data.outliers) / count, 4)
        if "std_dvars" in data.confounds:
            dvars = data.confounds["std_dvars"].to_numpy(dtype=float)
            found["MeanStdDvars"] = round(float(np.nanmean(dvars)), 4)
    return found


def _of_denoising(done: Mapping[str, Any], volumes: int) -> dict[str, Any]:
    """What the carpet's sidecar says of the run's denoising."""
    found: dict[str, Any] = {"VarianceRemoved": done.get("VarianceRemoved")}
    if (freedom := done.get("DegreesOfFreedom")) is not None:
        found |= {"DegreesOfFreedom": freedom, "FreedomLost": round(1 - freedom / volumes, 4)}
    kept = done.get("KeptVolumes")
    lost = len(done.get("CensoredVolumes", ()))
    return {**found, "VolumesLeft": volumes - lost if kept is None else len(kept)}


@lru_cache(maxsize=1)
def _tissues(template: str, zoom: float) -> Tissues:
    """Once for all recordings of a batch."""
    from ..tissues import load_tissues

    return load_tissues(template, zoom)


def _volumes(run: RecordingRun) -> tuple[Volumes, dict[str, Any]]:
    """The pictures on slices, and the numbers that come of the same volumes."""
    import numpy as np

    from ..images import read_image
    from ..report.quality.cuts import cuts_of
    from ..report.quality.measures import correlation_ratio, median_within
    from ..report.quality.recording import Volumes

    space = run.params["space"]
    tissues = _tissues(run.template(), space["resolution_mm"])
    mask = read_image(run.input("mni_mask")).data > 0
    boldref = _in_template_space(run, tissues)
    snr, grey = _snr(run, mask), tissues.labels == 1
    numbers: dict[str, Any] = {"MaskShare": round(float(mask.sum() / tissues.brain.sum()), 4)}
    ratio = correlation_ratio(boldref, tissues.t1w, tissues.brain & (boldref > 0))
    medians = {key: median_within(values, grey) for key, values in snr.items()}
    for key, value in {"Registration": ratio, **medians}.items():
        if value is not None:
            numbers[key] = round(value, 4)
    titles = {"TsnrBefore": "before denoising", "TsnrAfter": "after denoising"}
    volumes = Volumes(
        cuts=cuts_of(tissues.brain, tissues.affine),
        template=tissues.t1w,
        white=tissues.wm > 0.5,
        boldref=boldref,
        mask=mask,
        atlas=read_image(run.source(run.path("atlas_image"))).data.round().astype(np.int32),
        snr={titles[key]: values for key, values in snr.items()},
    )
    return volumes, numbers


def _in_template_space(run: RecordingRun, tissues: Tissues) -> NDArray[np.float32]:
    """The reference volume (x, y, z) on the template's grid, where the run was brought too."""
    from ..geometry import read_itk_affines
    from ..images import read_image
    from ..preproc.grids import resample_onto
    from ._reference import reference_kinds
    from ._warp import read_warp_of

    shape, grid = tissues.brain.shape, tissues.affine
    if run.params["engine"] != "native":
        image: Image = read_image(run.input("mni_boldref"))
        return resample_onto(image, grid, shape)[0]
    (to_mni,) = read_itk_affines(run.input("boldref_to_mni"))
    image = read_image(run.input(reference_kinds(run)[0]))
    return resample_onto(image, grid, shape, to_mni, warp=read_warp_of(run))[0]


def _snr(run: RecordingRun, mask: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
    """Key of the sidecar -> map (x, y, z), where the carpet holds them."""
    import numpy as np
    from safetensors.numpy import load_file

    carpet, found = load_file(run.path("carpet")), {}
    for key, name in (("TsnrBefore", "tsnr_before"), ("TsnrAfter", "tsnr_after")):
        if name in carpet and len(carpet[name]) == mask.sum():
            found[key] = np.zeros(mask.shape, dtype=np.float32)
            found[key][mask] = carpet[name]
    return found


def _components(run: RecordingRun, volumes: Volumes) -> list[dict[str, Any]]:
    import pandas as pd

    from ..denoise.components import read_mixing, read_noise
    from ..report.quality.components import component_rows
    from ..series import open_series

    mixing = read_mixing(run.input("ica_mixing"))
    table, review = run.input("aroma_metrics"), run.path("aroma_review")
    judged = run.source(review) if review.exists() else table
    metrics: pd.DataFrame = pd.read_csv(table, sep="\t", na_values="n/a")
    return component_rows(
        metrics,
        read_noise(judged, list(mixing.columns)),
        mixing,
        open_series(run.input("ica_maps")).volumes(),
        volumes.template,
        volumes.cuts,
        run.recording.tr,
    )


def _notes(run: RecordingRun) -> list[str]:
    """What onboarding repaired or assumed, and what denoising could not do as asked."""
    notes = list(run.recording.notes)
    if run.recording.kind in (None, "volume"):
        fallback = _about(run.path("carpet")).get("Fallback")
        if fallback:
            notes.append(f"The components did not settle: denoised with {fallback} instead.")
    return notes
