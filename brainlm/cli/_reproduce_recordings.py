"""`brainlm reproduce`: recordings from raw data to parcels again, in a study of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, ResourceError
from ._console import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..config import Config
    from ..layout import Study
    from ..recordings import Recording
    from ..reproduce.compare import Compared
    from ..reproduce.recorded import Recorded

#: What says that a folder is a scratch study of `brainlm reproduce`.
MARK = ".brainlm-reproduce.json"


def prepare_scratch(study: Study, folder: Path) -> Study:
    """A study that holds the recordings table and nothing else; one that was begun is gone on with.

    Refused where `folder` holds anything else, or a scratch study of another study.
    """
    from ..files import atomic_path, write_json
    from ..layout import Study

    if folder == study.root or folder.is_relative_to(study.root):
        raise InputError(
            "The scratch study would lie in the study, where nothing may be written",
            file=folder,
            fix="give --keep a folder elsewhere",
        )
    mark = folder / MARK
    # One that was killed while it wrote the mark has left that under a temporary name, and no more.
    if folder.is_dir() and any(not path.name.startswith(".tmp-") for path in folder.iterdir()):
        known = _read_mark(mark)
        if known.get("study") != str(study.root):
            raise InputError(
                "This folder is not empty, and holds no rerun of this study",
                file=folder,
                fix="give --keep a folder that is empty or not there yet",
            )
        if known.get("done"):
            _empty(folder)
        else:
            say(f"going on in {folder}")
    write_json(mark, {"study": str(study.root)})
    scratch = Study(folder)
    table, content = scratch.path("recordings"), study.path("recordings").read_bytes()
    if not table.exists() or table.read_bytes() != content:
        with atomic_path(table) as temporary:
            temporary.write_bytes(content)
    return scratch


def remove_scratch(scratch: Study) -> None:
    """Remove the scratch study; killed at it, the next run finishes that and starts anew.

    Without the mark that says so, half of a study would be gone on with.
    """
    from ..files import write_json

    write_json(scratch.root / MARK, {**_read_mark(scratch.root / MARK), "done": True})
    _empty(scratch.root)
    shutil.rmtree(scratch.root)


def _read_mark(mark: Path) -> dict[str, Any]:
    from ..files import read_json

    try:
        return dict(read_json(mark))
    except (OSError, ValueError, TypeError):
        return {}


def _empty(folder: Path) -> None:
    """Remove all but the mark."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARK:
            path.unlink()


def make_again(
    study: Study,
    scratch: Study,
    recordings: Sequence[Recording],
    sections: Mapping[str, Mapping[str, Any]],
    threads: int,
) -> None:
    """Run the workflow on these recordings; `sections` are the options that each was made with.

    Recordings of the same options are worked on together.
    """
    groups: dict[str, list[Recording]] = {}
    for recording in recordings:
        groups.setdefault(json.dumps(sections[recording.id], sort_keys=True), []).append(recording)
    for number, (options, members) in enumerate(groups.items()):
        _run(study, scratch, members, json.loads(options), f"{number:04d}", threads)


def _run(
    study: Study,
    scratch: Study,
    recordings: Sequence[Recording],
    sections: dict[str, Any],
    batch: str,
    threads: int,
) -> None:
    from ..config import to_commented_yaml
    from ..files import write_text
    from ..layout import ONLY_BATCH, folder_of
    from .run_batch import work_on_batch

    config = recorded_config(study, sections)
    write_text(scratch.path("config"), to_commented_yaml(config))
    _bring_own_files(study, scratch, config, recordings)
    files = [
        scratch.relative(
            scratch.path(kind, recording=one.id, folder=folder_of(one.id), **config.labels)
        )
        for one in recordings
        for kind in ("timeseries", "motion")
    ]
    about: dict[str, object] = {
        ONLY_BATCH: {"number": batch, "recordings": [one.id for one in recordings]}
    }
    if work_on_batch(scratch.root, about, threads, files=files):
        raise ResourceError(
            "The recordings could not all be worked on again; the lines above say why",
            file=scratch.root / "logs",
            fix="mend the cause and run the same command again: it goes on where it stopped",
        )


def recorded_config(study: Study, sections: Mapping[str, Any]) -> Config:
    """The study's config with the sections that made the files, and the dataset where it lies."""
    from ..config import load_config, parse_config
    from ..config.files import read_content

    path = study.path("config")
    bids_dir = load_config(path).resolve_bids_dir(study.root)
    content = {**read_content(path), **sections, "bids_dir": str(bids_dir)}
    return parse_config(content, source=path)


def _bring_own_files(
    study: Study, scratch: Study, config: Config, recordings: Sequence[Recording]
) -> None:
    """Copy what the user keeps in the study and recordings are made with: reviews, a classifier.

    Of fMRIPrep's outputs, too: its own run, which takes hours, is not done again.
    """
    from ..fmriprep.jobs import job_of
    from ..layout import entities_of

    wanted = [study.path("aroma_review", recording=one.id) for one in recordings]
    wanted += [study.root / part for part in config.ica.classifier]
    if config.engine == "fmriprep":
        outputs = study.path("fmriprep_outputs")
        subjects = {f"sub-{entities_of(one.id)['sub']}" for one in recordings}
        wanted += [path for name in sorted(subjects) for path in sorted(outputs.glob(f"{name}*"))]
        wanted.append(outputs / "dataset_description.json")
        jobs = {job_of(one.id, config.fmriprep.level) for one in recordings}
        wanted += [study.path("fmriprep_manifest", job=job) for job in sorted(jobs)]
    for path in wanted:
        if not path.exists() or not path.is_relative_to(study.root):
            continue
        target = scratch.root / path.relative_to(study.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        elif not target.exists() or target.read_bytes() != path.read_bytes():
            shutil.copyfile(path, target)  # one that is the same keeps its time, so nothing reruns


def compare_recordings(
    study: Study,
    scratch: Study,
    recordings: Sequence[Recording],
    configs: Mapping[str, Config],
    seen: Recorded,
) -> list[Compared]:
    """Every file that these recordings left, against the one that was made now."""
    from ..provenance import is_tombstone, sidecar_path
    from ..reproduce.compare import Compared, Verdict, compare_files
    from ..reproduce.recorded import ATLAS_KINDS, ESSENTIAL, files_of
    from ..reproduce.tolerances import tolerance_of
    from ._console import progress

    found: dict[str, Compared] = {}
    for recording in progress(recordings, "comparing files", len(recordings)):
        labels = configs[recording.id].labels
        files = files_of(study, recording, labels)
        files |= {kind: study.path(kind, **labels) for kind in ATLAS_KINDS}
        for kind, path in files.items():
            name = study.relative(path)
            again = scratch.root / name
            if name in found or not (path.exists() or again.exists()):
                continue
            sidecar = seen.note(path) or _sidecar_of(again)
            stage = str(sidecar["Stage"]) if sidecar else "unknown"
            one = compare_files(stage, name, path, again, tolerance_of(stage))
            if one.verdict is Verdict.not_made and kind not in ESSENTIAL:
                note = "made with other options, and left over"
                one = Compared(stage, name, Verdict.told, note=note)
            if again.exists() and is_tombstone(again) and not is_tombstone(path):
                one = Compared(stage, name, Verdict.beyond, note=_why(scratch, recording))
            if one.verdict is not Verdict.not_kept or sidecar_path(path).exists() or again.exists():
                found[name] = one
    return list(found.values())


def _sidecar_of(path: Path) -> dict[str, Any] | None:
    from ..provenance import is_tombstone, read_sidecar, sidecar_path

    there = path.exists() and not is_tombstone(path) and sidecar_path(path).exists()
    return read_sidecar(path) if there else None


def _why(scratch: Study, recording: Recording) -> str:
    """Why the recording was given up now."""
    from ..files import read_json

    for name in (recording.id, recording.anat_id):
        path = scratch.path("failure", recording=name) if name else None
        if path is not None and path.exists():
            entry = read_json(path)
            return f"given up now, at {entry['stage']}: {entry['what']}"
    return "given up now"
