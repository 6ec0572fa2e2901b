"""`brainlm ica`: the independent components of a run, and which of them are noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ._console import say
from ._single_thread import pin_libraries
from ._stage import (
    HERE,
    OnDataError,
    OnDataErrorOption,
    ParamsOption,
    RecordingArg,
    RecordingRun,
    StudyOption,
    recording_stage,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ..denoise.aroma import Regions
    from ..denoise.ica import Components

OUTPUTS = ("ica_mixing", "ica_maps", "aroma_metrics")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("ica")(ica)


def ica(
    recording_id: RecordingArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
) -> None:
    """Find the independent components of one normalised run, and judge each by ICA-AROMA.

    Writes the courses (mixing), the maps where each component is active, and a table of the four
    features of ICA-AROMA with the classification that follows from them. Nothing is taken out
    of the run here: `brainlm denoise` does that, where denoise.method is aroma. To
    overrule a classification, copy the table to review/ in the study folder and edit it there
    (accepted or rejected): denoising and what follows run anew.
    """
    pin_libraries()
    from ..images import read_image
    from ..series import open_series

    with recording_stage(
        "ica",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=OUTPUTS,
        software=("nibabel", "nilearn", "numpy", "pandas", "scikit-learn", "scipy"),
    ) as run:
        image = read_image(run.input("mni_mask"))
        mask = image.data > 0
        confounds = run.input("confounds")
        series = open_series(run.input("preproc_bold")).in_mask(mask)
        write_components(run, series, mask, image.affine, confounds)


def write_components(
    run: RecordingRun,
    series: NDArray[np.float32],
    mask: NDArray[np.bool_],
    affine: NDArray[np.float64],
    confounds: Path,
) -> None:
    """Decompose the voxels `series` (T, n) of `mask` (x, y, z), and write what came out."""
    import numpy as np
    import pandas as pd

    from ..denoise.components import REJECTED, component_names
    from ..denoise.ica import spatial_ica
    from ..denoise.mixture import active_probability
    from ..images import write_image

    options, tr = run.params["ica"], run.recording.tr
    regions = _regions(run, mask, affine)  # first: it says at once what is not there
    table = pd.read_csv(confounds, sep="\t", na_values="n/a")
    found = spatial_ica(
        series,
        mask,
        np.linalg.norm(affine[:3, :3], axis=0),
        _taken_out_before(table, tr, options["high_pass_s"]),
        fwhm_mm=options["smoothing_mm"],
        components=options["components"] or None,
        seed=options["seed"],
    )
    for values in found.maps:
        values[active_probability(values) <= 0.5] = 0
    names = component_names(len(found.maps))
    metrics = _metrics(run, found, table, regions)
    noise = int((metrics["classification"] == REJECTED).sum())
    about: dict[str, Any] = {
        "RepetitionTime": tr,
        "Components": len(names),
        "ComponentsEstimated": found.estimated,
        "Converged": found.converged,
        "VarianceExplained": round(found.kept, 4),
        "Rejected": noise,
    }
    with run.output("ica_mixing", about=about) as path:
        mixing = pd.DataFrame(found.mixing, columns=names)
        mixing.to_csv(path, sep="\t", index=False, float_format="%.10g")
    with run.output("ica_maps", about={**about, "Thresholded": "mixture model, p > 0.5"}) as path:
        volumes = np.zeros((*mask.shape, len(names)), dtype=np.float32)
        volumes[mask] = found.maps.T
        write_image(path, volumes, affine, in_mni=True, tr=1.0, atomic=False)
    with run.output("aroma_metrics", about={**about, "Masks": options["masks"]}) as path:
        metrics.to_csv(path, sep="\t", index=False, float_format="%.6g", na_rep="n/a")
    if not found.converged:
        say(f"Warning: the components of {run.recording.id} did not settle")
    say(f"{run.recording.id}: {noise} of {len(names)} components are noise")


def _taken_out_before(table: pd.DataFrame, tr: float, high_pass_s: float) -> NDArray[np.float64]:
    """Constant, drifts and volumes before the steady state: an orthonormal basis (T, c)."""
    import numpy as np

    from ..denoise.design import orthonormal
    from ..temporal import cosine_drifts

    unsteady = table.filter(regex="^non_steady_state_outlier").to_numpy(dtype=float)
    drifts = cosine_drifts(len(table), tr, high_pass_s)
    return orthonormal(np.hstack([np.ones((len(table), 1)), drifts, unsteady]))


def _metrics(
    run: RecordingRun, found: Components, table: pd.DataFrame, regions: Regions
) -> pd.DataFrame:
    """One row for each component: the features, and what the rule makes of them."""
    import pandas as pd

    from ..denoise.aroma import (
        high_frequency_content,
        motion_correlation,
        spatial_fractions,
        subsets,
    )
    from ..denoise.components import classified, component_names
    from ..geometry import MOTION_NAMES

    motion = table[list(MOTION_NAMES)].to_numpy(dtype=float)
    edge, csf = spatial_fractions(found.maps, regions)
    features = pd.DataFrame(
        {
            "component": component_names(len(found.maps)),
            "edge_fract": edge,
            "csf_fract": csf,
            "max_RP_corr": motion_correlation(
                found.mixing, motion, subsets(len(motion), run.params["ica"]["seed"])
            ),
            "HFC": high_frequency_content(found.mixing, run.recording.tr),
            "variance_explained": found.explained,
        }
    )
    return classified(features)


def _regions(run: RecordingRun, mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> Regions:
    """Where noise shows, at the voxels of `mask`: the template's tissues or the published masks."""
    from ..denoise.regions import published_regions, template_regions
    from ..images import read_image
    from ..masks import MASKS, mask_path, mask_problems, mask_sources
    from ..tissues import load_tissues

    options, space = run.params["ica"], run.params["space"]
    if options["masks"] == "template":
        return template_regions(load_tissues(run.template(), space["resolution_mm"]), mask)
    for problem in mask_problems(space["template"], options["masks_space_ok"]):
        raise problem
    run.sources |= mask_sources()
    return published_regions({name: read_image(mask_path(name)) for name in MASKS}, mask, affine)
