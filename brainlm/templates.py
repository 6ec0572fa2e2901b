"""The templates: which there are, which bytes are the right ones, and where they lie here.

MNI152NLin2009aSym ships with nilearn. MNI152NLin6Asym, the space in which A424 is drawn, comes
from TemplateFlow's archive (Ciric et al. 2022, Nat. Methods 19:1568). TemplateFlow has no tissue
maps in that space, so `brainlm template get` carries nilearn's over; they lie in our cache.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from .errors import InputError
from .fetch import Pinned, cache_dir, fetch
from .files import read_json
from .provenance import sha256_file, sidecar_path

#: The template that is always there, and whose tissue maps serve the others.
BUNDLED = "MNI152NLin2009aSym"
TISSUES = ("GM", "WM")


@dataclass(frozen=True)
class Template:
    """One template: an average head that defines a space."""

    name: str
    description: str
    citation: str
    files: Mapping[str, str]  # contrast to file name
    address: str | None = None  # of its files' folder; None: they ship with nilearn
    md5: Mapping[str, str] = field(default_factory=dict)  # of what is fetched, by contrast

    def pinned(self, contrast: str) -> Pinned:
        """A file of this template as it lies in its archive."""
        return Pinned(
            what=f"the file {self.files[contrast]} of template {self.name}",
            url=f"{self.address}/tpl-{self.name}/{self.files[contrast]}",
            digest=self.md5[contrast],
            algorithm="md5",
            command=f"brainlm template get {self.name} --from FOLDER",
        )


TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        Template(
            name=BUNDLED,
            description="left-right symmetric; ships with nilearn",
            citation="Fonov V, et al. Unbiased average age-appropriate atlases for pediatric "
            "studies. NeuroImage 54:313-327, 2011.",
            files={
                "T1w": "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
                "GM": "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz",
                "WM": "mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz",
                "brain": "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",  # T1w not 0
            },
        ),
        Template(
            name="MNI152NLin6Asym",
            description="the space of FSL and of A424; fetched from TemplateFlow",
            citation="Evans AC, et al. Brain templates and atlases. NeuroImage 62:911-922, 2012.",
            address="https://templateflow.s3.amazonaws.com",
            files={
                "T1w": "tpl-MNI152NLin6Asym_res-01_desc-brain_T1w.nii.gz",
                "brain": "tpl-MNI152NLin6Asym_res-01_desc-brain_mask.nii.gz",
                "GM": "tpl-MNI152NLin6Asym_res-01_desc-carried_label-GM_probseg.nii.gz",
                "WM": "tpl-MNI152NLin6Asym_res-01_desc-carried_label-WM_probseg.nii.gz",
            },
            # As TemplateFlow's own git-annex records them.
            md5={
                "T1w": "c1c90ea94864dbc7a0aedac6142e364e",
                "brain": "f74c778d0bac6b6132d510cedb1a6efa",
            },
        ),
    )
}


def find_template(name: str) -> Template:
    """The template of that name."""
    if name not in TEMPLATES:
        raise InputError(f"There is no template {name!r} here", fix=f"use {' or '.join(TEMPLATES)}")
    return TEMPLATES[name]


def template_folders(template: Template) -> tuple[Path, Path]:
    """Where a fetched template may lie: a TemplateFlow home first, then our own cache."""
    home = os.environ.get("TEMPLATEFLOW_HOME") or Path.home() / ".cache" / "templateflow"
    folder = f"tpl-{template.name}"
    return Path(home) / folder, cache_dir("templates") / folder


def file_here(template: Template, contrast: str) -> Path | None:
    """The file of one contrast (`T1w`, `brain`, `GM`, `WM`) on this machine, if it is whole.

    Bytes that are not the registered ones do not count: TemplateFlow's own package puts files
    of 0 bytes in place of those that nobody has asked for.
    """
    if template.address is None:
        return _shipped(template.files[contrast])
    if contrast in TISSUES:
        return _carried(template, contrast)
    wanted = template.pinned(contrast)
    places = (folder / template.files[contrast] for folder in template_folders(template))
    return next((place for place in places if wanted.is_at(place)), None)


def is_here(name: str) -> bool:
    """Whether all of a template is on this machine."""
    template = find_template(name)
    return all(file_here(template, contrast) for contrast in template.files)


def template_file(name: str, contrast: str) -> Path:
    """The file of one contrast, its checksum verified; or say how to get the template."""
    template = find_template(name)
    path = file_here(template, contrast)
    if path is None:
        raise _absent(template)
    return path


def template_problem(name: str) -> InputError | None:
    """What keeps a template from being used, if anything does."""
    return None if is_here(name) else _absent(find_template(name))


def template_sources(name: str) -> dict[str, str]:
    """SHA-256 of each file of a fetched template, for sidecars; nilearn's go by its version."""
    template = find_template(name)
    if template.address is None:
        return {}
    paths = [template_file(name, contrast) for contrast in template.files]
    return {f"template::{path.name}": sha256_file(path) for path in paths}


def fetch_template(
    template: Template, source: str | None = None, *, attempts: int = 4, pause_s: float = 1.0
) -> None:
    """Bring the files that the archive has into our cache, unless they are on this machine.

    `source` is a folder, or the address of one, to take them from instead.
    """
    for contrast in template.md5:
        if file_here(template, contrast) is not None:
            continue
        name = template.files[contrast]
        origin = None if source is None else f"{source.rstrip('/')}/{name}"
        path = template_folders(template)[1] / name
        fetch(template.pinned(contrast), path, origin, attempts=attempts, pause_s=pause_s)


def carried_from(template: Template) -> dict[str, str]:
    """SHA-256 of the files from which the carried-over tissue maps of a template are made."""
    ours = [template_file(template.name, contrast) for contrast in template.md5]
    theirs = [template_file(BUNDLED, contrast) for contrast in ("T1w", *TISSUES)]
    return {f"template::{path.name}": sha256_file(path) for path in (*ours, *theirs)}


def _shipped(name: str) -> Path:
    """A file of nilearn's, found without importing nilearn (1.5 s)."""
    spec = find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise InputError("nilearn is not installed", fix="pip install 'brainlm[imaging]'")
    path = Path(spec.origin).parent / "datasets" / "data" / name
    if not path.is_file() or not path.stat().st_size:
        fault = "empty" if path.exists() else "gone"
        raise InputError(
            f"nilearn is not installed whole: its template is {fault}",
            file=path,
            fix="pip install --force-reinstall nilearn",
        )
    return path


def _carried(template: Template, tissue: str) -> Path | None:
    """A tissue map in our cache, if it was made of the files that are registered now."""
    path = template_folders(template)[1] / template.files[tissue]
    record = sidecar_path(path)
    whole = path.is_file() and record.is_file()
    if not whole or any(file_here(template, contrast) is None for contrast in template.md5):
        return None
    about = read_json(record)
    sound = about["Sources"] == carried_from(template) and about["SHA256"] == sha256_file(path)
    return path if sound else None


def _absent(template: Template) -> InputError:
    home, cache = template_folders(template)
    absent = [name for key, name in template.files.items() if file_here(template, key) is None]
    return InputError(
        f"Template {template.name} is not (whole) on this machine: {', '.join(absent)} is missing",
        file=cache,
        fix=f"`brainlm template get {template.name}` where there is a network; without one, put "
        f"{' and '.join(template.files[contrast] for contrast in template.md5)} there or into "
        f"{home} and call it all the same; or set space.template: {BUNDLED}",
    )
