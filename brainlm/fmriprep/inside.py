"""What `brainlm containers prepare` has the container's Python do; needs TemplateFlow's client.

Run as `python -c` with a JSON of {templates: {name: [files]}, home, image_home, subjects,
subjects_home}. It imports nothing of brainlm, which the image does not have.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path


def fill(home: Path, image_home: Path, templates: dict[str, list[str]]) -> None:
    """Copy what the image holds itself into the cache, and fetch what it does not."""
    os.environ["TEMPLATEFLOW_HOME"] = str(home)
    from templateflow import api  # makes the cache's skeleton, with empty files

    for template, files in templates.items():
        for name in files:
            wanted, held = home / name, image_home / name
            if wanted.is_file() and wanted.stat().st_size:
                continue
            if held.is_file() and held.stat().st_size:
                _place(held, wanted)
            elif not name.endswith(".json"):  # those came with the skeleton
                print(f"fetching {name}", flush=True)
                api.get(template, raise_empty=True, **query_of(name))
        if len(files) == 1:  # nothing is known of this template but its name
            print(f"fetching {template}", flush=True)
            api.get(template, raise_empty=True, suffix=["T1w", "mask"], extension=".nii.gz")


def copy_subjects(names: list[str], home: Path) -> None:
    """Copy FreeSurfer's average subjects out of the image."""
    for name in names:
        if not (home / name).exists():
            source = Path(os.environ["FREESURFER_HOME"]) / "subjects" / name
            partial = home / f".tmp-{name}"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(source, partial, copy_function=shutil.copy)
            partial.rename(home / name)


def query_of(name: str) -> dict[str, str | int | None]:
    """TemplateFlow's query for one file: what its name lacks is asked to be lacking."""
    stem, _, extension = Path(name).name.partition(".")
    *parts, suffix = stem.split("_")[1:]
    names = {
        "res": "resolution",
        "den": "density",
        "seg": "segmentation",
        "desc": "desc",
        "label": "label",
        "atlas": "atlas",
        "hemi": "hemi",
        "space": "space",
    }
    found: dict[str, str | int | None] = dict.fromkeys(("desc", "label", "atlas", "space"))
    for part in parts:
        key, value = part.split("-", 1)
        found[names[key]] = int(value) if key == "res" else value
    return {**found, "suffix": suffix, "extension": f".{extension}"}


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".tmp-{target.name}")
    shutil.copyfile(source, partial)
    partial.rename(target)


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    fill(Path(wanted["home"]), Path(wanted["image_home"]), wanted["templates"])
    copy_subjects(wanted["subjects"], Path(wanted["subjects_home"]))
