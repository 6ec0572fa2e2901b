"""ICA-AROMA and denoising of a normalised run, from files to files.

Each does what the command of the same name does, without a study around it. Every function takes
the folder for its outputs, the config (for its options) and its inputs, and returns plain JSON
types; `brainlm.pinned` calls them in a process of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ..config import Config
from ..errors import InputError
from ..images import write_image
from ..series import in_volumes, open_series, read_mask, write_series
from ..tissues import tissues_on
from .components import read_mixing, read_noise, search_settled
from .design import Noise, make_design
from .given import look_at_given
from .judge import find_and_judge, write_metrics, write_mixing
from .regions import chosen_regions
from .regression import clean
from .regressors import check_rows
from .verdict import check_classifier, with_verdict

Answer = dict[str, Any]


def find_components(
    folder: Path, config: Config, *, preproc_bold: str, mni_mask: str, confounds: str, tr: float
) -> Answer:
    """The independent components of a run, and which of them are noise."""
    bold = open_series(preproc_bold)
    image = read_mask(mni_mask, bold.affine, bold.shape)
    mask = image.data
    options, template = config.ica.model_dump(), config.space.template
    check_classifier(options, folder)
    tissues = tissues_on(image, template, mni_mask)
    table = pd.read_csv(confounds, sep="\t", na_values="n/a")
    check_rows(len(table), bold.shape[3], Path(confounds))
    found = find_and_judge(
        bold.in_mask(mask),
        mask,
        image.affine,
        table,
        chosen_regions(options, template, tissues, mask),
        tr=tr,
        options=options,
    )
    found = with_verdict(found, options, mask, image.affine, folder=folder, tr=tr)
    files = {
        "ica_mixing": folder / "ica_mixing.tsv",
        "ica_maps": folder / "ica_components.nii.gz",
        "aroma_metrics": folder / "aroma_metrics.tsv",
    }
    write_mixing(files["ica_mixing"], found.mixing)
    write_image(files["ica_maps"], found.volumes(mask), image.affine, in_mni=True, tr=1.0)
    write_metrics(files["aroma_metrics"], found.metrics)
    return {**{name: str(path) for name, path in files.items()}, "about": found.about()}


def denoise(
    folder: Path,
    config: Config,
    *,
    preproc_bold: str,
    mni_mask: str,
    confounds: str,
    tr: float,
    ica_mixing: str | None = None,
    aroma_metrics: str | None = None,
) -> Answer:
    """Drifts, nuisance columns or components, and spoilt volumes taken out of a run."""
    options = config.denoise.model_dump(mode="json")
    components = None
    if options["method"] == "aroma":
        if ica_mixing is None or aroma_metrics is None:
            raise InputError(
                "method aroma needs ica_mixing and aroma_metrics",
                fix="connect them from FindComponents",
            )
        mixing = read_mixing(Path(ica_mixing))
        metrics = Path(aroma_metrics)
        rejected = read_noise(metrics, list(mixing.columns))
        components = Noise(mixing, rejected, search_settled(metrics))
    bold = open_series(preproc_bold)
    mask = read_mask(mni_mask, bold.affine, bold.shape).data
    table, file = pd.read_csv(confounds, sep="\t", na_values="n/a"), Path(preproc_bold)
    design = make_design(table, tr=tr, options=options, file=file, components=components)
    check_rows(len(table), bold.shape[3], Path(confounds))
    series = bold.in_mask(mask)
    given = options["method"] == "fix"
    look = look_at_given(series, table, design.kept, file) if given else {}
    removed = clean(series, design)
    path = folder / "denoised_bold.nii.gz"
    volumes = in_volumes(series, mask, design.volumes)
    write_series(path, volumes, (*mask.shape, len(design.volumes)), bold.affine, tr=tr)
    about = {**look, **design.about(options["scrub"]), "VarianceRemoved": round(removed, 4)}
    return {"denoised_bold": str(path), "about": about}
