from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from brainlm.config import Config, load_config, load_preset, parse_config, to_commented_yaml
from brainlm.errors import InputError
from brainlm.resources import package_dir
from brainlm.stages import (
    GROUND_FLOOR,
    STAGES,
    code_digest,
    params_to_json,
    parse_params,
    source_modules,
    stage_params,
)


@pytest.mark.parametrize("name", STAGES)
def test_params_survive_the_command_line(name: str) -> None:
    params = stage_params(name, Config())
    assert parse_params(name, params_to_json(params)) == params


def test_params_with_foreign_keys_are_refused() -> None:
    with pytest.raises(InputError, match="exactly the keys motion"):
        parse_params("motion", json.dumps({"motion": {}, "space": {}}))
    with pytest.raises(InputError, match="not valid JSON"):
        parse_params("motion", "{")


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_has_its_command_among_its_sources(name: str) -> None:
    modules = source_modules(STAGES[name].module)
    assert STAGES[name].module in modules
    assert len(modules) > 1, "a stage computes somewhere outside its command"
    assert not modules & GROUND_FLOOR


def test_stages_do_not_share_more_than_they_should() -> None:
    """Editing the motion estimator must not rerun registration, and so on."""
    owners: dict[str, set[str]] = {}
    for name, stage in STAGES.items():
        for module in source_modules(stage.module):
            owners.setdefault(module, set()).add(name)
    for names in owners.values():
        names.discard("phantom-check")  # its ceiling goes the whole way with the truth
    assert owners["brainlm.preproc.motion"] == {"motion"}
    assert owners["brainlm.preproc.resample"] == {"resample", "resample-to-parcels"}
    straight = {"resample-to-parcels", "adopt-to-parcels"}
    assert owners["brainlm.denoise.regression"] == {"denoise", *straight}
    assert owners["brainlm.preproc.adopt"] == {"adopt", "adopt-to-parcels"}
    assert "motion" not in owners["brainlm.model.mae"]
    adopting = {"adopt", "adopt-parcels", "adopt-to-parcels"}
    assert owners["brainlm.bids.ready.fmriprep"] == {*adopting, "ica", "resample-to-parcels"}
    assert "ica" not in owners["brainlm.parcellate.cifti"]


def _digests_in_copy(folder: Path) -> dict[str, str]:
    code = (
        "import json; from brainlm.stages import STAGES, code_digest\n"
        "print(json.dumps({name: code_digest(name) for name in STAGES}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def test_an_edit_changes_the_digest_of_its_stage_alone(tmp_path: Path) -> None:
    shutil.copytree(package_dir(), tmp_path / "brainlm", ignore=shutil.ignore_patterns("__pyc*"))
    before = _digests_in_copy(tmp_path)
    assert before["motion"] == code_digest("motion")
    edited = tmp_path / "brainlm" / "preproc" / "motion.py"
    edited.write_text(edited.read_text() + "\n# an edit\n")
    after = _digests_in_copy(tmp_path)
    assert {name for name in STAGES if before[name] != after[name]} == {"motion"}


def test_commented_yaml_says_the_same_as_the_models() -> None:
    config = Config(finetune={"targets": ({"name": "age"}, {"name": "sex", "kind": "binary"})})
    assert parse_config(yaml.safe_load(to_commented_yaml(config)), source="x") == config


def test_faults_in_a_config_are_named(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("motion: {iteratons: 3}\nsplit: {train: 0.9, val: 0.2}\n")
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert "motion.iteratons" in str(caught.value)
    assert "train + val below 1" in str(caught.value)
    path.write_text("motion: [unclosed")
    with pytest.raises(InputError, match="not valid YAML"):
        load_config(path)
    with pytest.raises(InputError, match="no config here"):
        load_config(tmp_path / "none.yaml")


def test_presets_are_strict() -> None:
    assert load_preset(Config().model)["parcels"] == 424
    with pytest.raises(InputError, match="unknown keys: hiden"):
        load_preset(Config(model={"overrides": {"hiden": 3}}).model)
    with pytest.raises(InputError, match="choose of"):
        load_preset(Config(model={"preset": "huge"}).model)
