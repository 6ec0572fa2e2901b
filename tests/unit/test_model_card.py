"""The model card says what the Hub and a reader need."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest
import yaml

from brainlm.model.card import model_card, released_card
from brainlm.model.config import ModelConfig

from .synthetic_cohort import NETWORK

CONFIG = ModelConfig.from_dict({**NETWORK, "decoder_layers": 1, "dropout": 0.0})
GIVEN: dict[str, Any] = {
    "n_parameters": 1234567,
    "counts": {"train": 80, "val": 10},
    "training": {"epochs": 3},
    "results": {"epoch": 3, "val_loss": 0.51234567, "val_r2": 0.4},
}
RUN = 'r:un "1" #it\'s'  # nothing of it may end the YAML
RELEASED = {"source": "vandijklab/brainlm", "subfolder": "old_13M"}


def _front_matter(card: str) -> dict[str, Any]:
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


def test_what_the_hub_reads() -> None:
    about = _front_matter(model_card(RUN, CONFIG, **GIVEN))
    assert about["library_name"] == "brainlm" and about["pipeline_tag"] == "feature-extraction"
    assert "fmri" in about["tags"] and "license" not in about
    (index,) = about["model-index"]
    assert index["name"] == RUN
    metrics = {one["type"]: one["value"] for one in index["results"][0]["metrics"]}
    assert metrics == {"val_loss": 0.51234567, "val_r2": 0.4}
    bare = _front_matter(model_card("run", CONFIG, **{**GIVEN, "results": {}}))
    assert "model-index" not in bare


def test_the_hubs_own_reader_takes_it() -> None:
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard(model_card("run", CONFIG, **GIVEN), ignore_metadata_errors=False).data
    assert {one.metric_type for one in data.eval_results} == {"val_loss", "val_r2"}
    released = hub.ModelCard(released_card("run", CONFIG, RELEASED)).data
    assert released.license == "cc-by-nc-nd-4.0"


def test_the_licence_of_released_weights_stays_with_what_comes_from_them() -> None:
    tuned = model_card("run", CONFIG, **GIVEN, released=RELEASED)
    for card in (tuned, released_card("run", CONFIG, RELEASED)):
        assert _front_matter(card)["license"] == "cc-by-nc-nd-4.0"
        assert "CC BY-NC-ND" in card
    assert "not the weights that the paper's authors released" not in tuned
    assert "CC BY-NC-ND" not in model_card("run", CONFIG, **GIVEN)


@pytest.mark.parametrize(
    ("head", "call"),
    [
        (None, "vector = model.embed"),
        ({"name": "age"}, "age = model.predict"),
        ({"name": "a b"}, "label = model.predict"),
        ({"name": "class"}, "label = model.predict"),
    ],
)
def test_how_to_load_it_is_python(head: dict[str, str] | None, call: str) -> None:
    card = model_card("run", CONFIG, **GIVEN, head=head)
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    ast.parse(code)
    assert f"{call}(" in code and len(code.splitlines()) <= 5
    assert "1,234,567 parameters" in card and "| train | 80 |" in card


def test_tokens_are_told_as_they_are() -> None:
    assert "10 volumes of one parcel" in model_card("run", CONFIG, **GIVEN)
    image = ModelConfig.from_dict(
        {**NETWORK, "decoder_layers": 1, "dropout": 0.0, "tokenizer": "image", "patch": 4}
    )
    assert "squares of 4 parcels by 4 volumes" in model_card("run", image, **GIVEN)
