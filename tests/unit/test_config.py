"""The config: one source for YAML, schema and help; user errors are told well."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from brainlm.bids.study import merge, parse_settings
from brainlm.cli.config import config_app
from brainlm.config import Config, Section, config_schema, load_config, to_commented_yaml
from brainlm.errors import InputError
from brainlm.resources import share_dir


def run(*arguments: str):
    return CliRunner().invoke(config_app, list(arguments))


def test_committed_schema_is_that_of_the_models():
    """Mend with `brainlm config schema --output workflow/schemas/config.schema.json`."""
    committed = share_dir() / "workflow" / "schemas" / "config.schema.json"
    assert json.loads(committed.read_text()) == config_schema()


def test_committed_defaults_are_those_of_the_models():
    """Mend with `brainlm config show --defaults > config/config.yaml`."""
    committed = share_dir() / "config" / "config.yaml"
    assert committed.read_text() == to_commented_yaml(Config())
    assert load_config(committed) == Config()


def test_the_schema_accepts_the_defaults_and_refuses_unknown_keys():
    schema = config_schema()
    content = yaml.safe_load(to_commented_yaml(Config()))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(content, schema)
    for wrong in ({"sede": 1}, {"motion": {"iteration": 3}}, {"split": {"train": 2}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(content | wrong, schema)


def test_codes_of_labels_may_be_numbers_in_yaml_and_are_text_ever_after():
    rule = "{name: sex, missing: [-9, 999.0, lost], levels: {1: m, 2: f}, type: category}"
    other = "{name: old, column: age, type: binary, positive: 2}"
    content = yaml.safe_load(f"phenotypes: {{missing: [-1], labels: [{rule}, {other}]}}")
    jsonschema.validate(content, config_schema())
    config = Config.model_validate(content)
    label = config.phenotypes.labels[0]
    assert label.missing == ("-9", "999", "lost") and label.levels == {"1": "m", "2": "f"}
    assert config.phenotypes.labels[1].positive == "2"
    assert Config.model_validate(yaml.safe_load(to_commented_yaml(config))) == config


def test_every_option_has_a_help_text_that_options_prints():
    text = run("options").output
    for name, field in Config.model_fields.items():
        value = getattr(Config(), name)
        if isinstance(value, Section):
            for key, option in type(value).model_fields.items():
                assert f"{name}.{key} = " in text
                assert option.description and option.description in text
        else:
            assert f"{name} = " in text
            assert field.description and field.description in text


def test_show_fills_in_the_defaults(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("seed: 7\n")
    shown = yaml.safe_load(run("show", "--study", str(tmp_path)).output)
    assert shown["seed"] == 7
    assert shown["denoise"]["high_pass_s"] == 100.0
    assert json.loads(run("schema").output) == config_schema()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("bids_dir: absent", "bids_dir does not exist"),
        ("bids_dir: .\natlas: {name: A425}", "no atlas called 'A425'"),
        ("bids_dir: .\natlas: {name: A424}", "drawn in MNI152NLin6Asym"),
        ("bids_dir: .\nmodel: {preset: vast}", "no model preset called 'vast'"),
        ("denois: {}", "denois: Extra inputs"),
    ],
)
def test_check_finds_what_would_stop_a_run(tmp_path, text, fault):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=fault):
        raise run("check", "--study", str(tmp_path)).exception


def test_check_passes_a_good_config(tmp_path):
    (tmp_path / "config").mkdir()
    path = tmp_path / "config" / "config.yaml"
    path.write_text("bids_dir: .\natlas: {name: A424approx}")
    result = run("check", "--study", str(tmp_path))
    assert result.exit_code == 0
    assert "is valid" in result.output


def test_settings_are_nested_yaml():
    settings = ["a.b=1", "a.c=[{name: age}]", "name=my study", "a.b=2"]
    assert parse_settings(settings) == {
        "a": {"b": 2, "c": [{"name": "age"}]},
        "name": "my study",
    }
    assert merge({"a": {"b": 1, "d": 4}}, {"a": {"b": 2}}) == {"a": {"b": 2, "d": 4}}


@pytest.mark.parametrize("setting", ["seed", "=1", "a=[", "a.b=1|a.b.c=2"])
def test_faulty_settings_are_refused(setting):
    with pytest.raises(InputError):
        parse_settings(setting.split("|"))
