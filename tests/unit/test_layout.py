from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainlm.config import Config
from brainlm.dag import RECORDING_REGEX
from brainlm.layout import TEMPLATES, entities_of, folder_of

LABEL = st.text(string.ascii_letters + string.digits, min_size=1, max_size=6)
FIELDS = {
    "recording": "sub-01_ses-2_task-rest",
    "folder": "sub-01/ses-2",
    "anat": "sub-01_ses-2",
    "anat_folder": "sub-01/ses-2",
    "run": "tiny",
    "target": "age",
    "method": "ar",
    "batch": "0000",
    "job": "sub-01",
    "point": "tiny-0.5",
    "shard": "train-00000",
    **Config().labels,
}


def test_no_two_kinds_of_file_share_a_path() -> None:
    paths = [template.format(**FIELDS) for template in TEMPLATES.values()]
    assert len(set(paths)) == len(paths)


def test_no_two_data_files_share_a_sidecar() -> None:
    from brainlm.provenance import sidecar_path

    data = [
        template.format(**FIELDS)
        for template in TEMPLATES.values()
        if not template.endswith((".json", ".yaml", ".html", ".jsonl"))
        and "onboarding" not in template
    ]
    sidecars = [str(sidecar_path(path)) for path in data]
    shared = {name for name in sidecars if sidecars.count(name) > 1}
    assert not shared


@given(st.dictionaries(st.sampled_from(["ses", "task", "run", "acq"]), LABEL), LABEL)
def test_identifiers_round_trip(entities: dict[str, str], subject: str) -> None:
    entities = {"sub": subject, **entities}
    identifier = "_".join(f"{key}-{value}" for key, value in entities.items())
    assert entities_of(identifier) == entities
    assert re.fullmatch(RECORDING_REGEX, identifier)
    expected = f"sub-{subject}" + (f"/ses-{entities['ses']}" if "ses" in entities else "")
    assert folder_of(identifier) == expected


@pytest.mark.parametrize("bad", ["sub-01_task", "sub-01__task-rest", "sub-../x", "", "sub-01 x-1"])
def test_bad_identifiers_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="BIDS entities"):
        entities_of(bad)


def test_a_derivative_is_never_taken_for_a_recording() -> None:
    assert not re.fullmatch(RECORDING_REGEX, "sub-01_task-rest_space-MNI152NLin6Asym_res-2")
    assert not re.fullmatch(RECORDING_REGEX, "sub-01_task-rest_desc-brain")
