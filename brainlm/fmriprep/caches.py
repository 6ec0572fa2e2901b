"""What must lie on this machine before a job starts: templates, and FreeSurfer's fsaverage.

Both would else be fetched or written by the first jobs, all at once, into one folder. They are
therefore made once by `brainlm containers prepare` and mounted read-only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..fetch import cache_dir

#: TemplateFlow's files that fMRIPrep 25 asks for, by template: as the image's own cache is
#: filled (scripts/fetch_templates.py of fMRIPrep), and the table of segments of the surfaces.
FILES: dict[str, tuple[str, ...]] = {
    "MNI152NLin2009cAsym": (
        "res-01_T1w.nii.gz",
        "res-01_T2w.nii.gz",
        "res-02_T1w.nii.gz",
        "res-02_T2w.nii.gz",
        "res-01_desc-brain_mask.nii.gz",
        "res-02_desc-brain_mask.nii.gz",
        "res-01_desc-carpet_dseg.nii.gz",
        "res-02_desc-fMRIPrep_boldref.nii.gz",
        "res-01_label-brain_probseg.nii.gz",
    ),
    "MNI152NLin6Asym": (
        "res-01_T1w.nii.gz",
        "res-02_T1w.nii.gz",
        "res-01_desc-brain_mask.nii.gz",
        "res-02_desc-brain_mask.nii.gz",
        "res-02_atlas-HCP_dseg.nii.gz",
    ),
    "OASIS30ANTs": (
        "res-01_T1w.nii.gz",
        "res-01_label-WM_probseg.nii.gz",
        "res-01_label-BS_probseg.nii.gz",
        "res-01_label-brain_probseg.nii.gz",
        "res-01_desc-brain_mask.nii.gz",
        "res-01_desc-BrainCerebellumExtraction_mask.nii.gz",
    ),
    "fsaverage": (
        "seg-aparc_dseg.tsv",
        *(
            f"hemi-{side}_den-164k_{what}.gii"
            for side in "LR"
            for what in (
                "desc-std_sphere.surf",
                "desc-vaavg_midthickness.shape",
                "midthickness.surf",
                "sulc.shape",
            )
        ),
    ),
    "fsLR": tuple(
        f"{space}hemi-{side}_den-32k_{what}.gii"
        for side in "LR"
        for space, what in (
            ("", "desc-nomedialwall_dparc.label"),
            ("", "desc-vaavg_midthickness.shape"),
            ("", "sphere.surf"),
            ("space-fsaverage_", "sphere.surf"),
        )
    ),
}
#: Templates that every run reads, whatever it is asked for: the second gives masks, the carpet
#: plot and the head that distortion is looked for on, the third strips skulls.
_ALWAYS = ("MNI152NLin6Asym", "MNI152NLin2009cAsym", "OASIS30ANTs")
_OF_SURFACES = ("fsaverage", "fsLR")
#: Spaces of the subject itself, which no template defines.
NATIVE = frozenset({"anat", "T1w", "run", "func", "bold", "sbref", "fsnative"})
#: New in FreeSurfer 7: fMRIPrep replaces a copy of fsaverage without it.
FSAVERAGE_MARK = Path("label") / "rh.FG1.mpm.vpnl.label"


def templates_of(spaces: Sequence[str], freesurfer: bool) -> list[str]:
    """The templates that a run reads."""
    asked = [space.partition(":")[0] for space in spaces]
    surface = _OF_SURFACES if freesurfer else ()
    found = dict.fromkeys([*_ALWAYS, *surface, *(name for name in asked if name not in NATIVE)])
    return [name for name in found if not name.startswith("fsaverage") or name == "fsaverage"]


def files_of(template: str) -> list[str]:
    """The files of a template that fMRIPrep asks for, relative to TEMPLATEFLOW_HOME.

    Of templates that are not listed only the description is known.
    """
    names = [f"tpl-{template}_{name}" for name in FILES.get(template, ())]
    return [f"tpl-{template}/{name}" for name in ("template_description.json", *names)]


def templateflow_home(chosen: Path | None, study: Path) -> Path:
    """The cache of templates: the config's, else $TEMPLATEFLOW_HOME, else the user's."""
    if chosen is not None:
        return (study / chosen).resolve()
    home = os.environ.get("TEMPLATEFLOW_HOME")
    return Path(home).resolve() if home else Path.home() / ".cache" / "templateflow"


def missing_templates(home: Path, templates: Sequence[str]) -> list[str]:
    """Files that are not (whole) in the cache: TemplateFlow puts empty ones for what is not here.

    A template that is not listed must hold at least one T1w, whole.
    """
    wanted = [name for template in templates for name in files_of(template)]
    absent = [name for name in wanted if not _whole(home / name)]
    for template in templates:
        if template not in FILES and not any(
            _whole(path) for path in (home / f"tpl-{template}").glob("**/*_T1w.nii*")
        ):
            absent.append(f"tpl-{template}/tpl-{template}_*_T1w.nii.gz")
    return absent


def check_templates(home: Path, templates: Sequence[str]) -> None:
    """Refuse to start without the templates: jobs see the cache read-only, and no network."""
    absent = missing_templates(home, templates)
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise InputError(
            f"The cache of templates lacks {absent[0]}{more}",
            file=home,
            fix="run `brainlm containers prepare` once, where there is a network",
        )


def fsaverage_names(spaces: Sequence[str]) -> list[str]:
    """The FreeSurfer subjects that a run with surfaces reads: fsaverage, and denser or coarser."""
    asked = [space.partition(":")[0] for space in spaces]
    return list(dict.fromkeys(["fsaverage", *(x for x in asked if x.startswith("fsaverage"))]))


def fsaverage_home(image_digest: str) -> Path:
    """Where the average subjects of an image are kept, apart for each image."""
    return cache_dir("fsaverage") / image_digest.rpartition(":")[2][:12]


def check_fsaverage(home: Path, names: Sequence[str]) -> None:
    """Refuse to start with surfaces without a shared copy of the average subjects."""
    absent = [name for name in names if not (home / name / "surf" / "lh.white").is_file()]
    if absent or not (home / "fsaverage" / FSAVERAGE_MARK).is_file():
        raise InputError(
            f"There is no whole copy of FreeSurfer's {', '.join(absent or ['fsaverage'])} here",
            file=home,
            fix="run `brainlm containers prepare` once",
        )


def _whole(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
