"""Finding dataset files, those that come with brainlm and the user's own."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from ...config.base import faults_of
from ...config.strict_yaml import read_yaml
from ...errors import InputError
from ...resources import share_dir
from .model import Dataset


def dataset_names() -> list[str]:
    """The datasets that brainlm knows, sorted."""
    return sorted((path.stem for path in _folder().glob("*.yaml")), key=str.lower)


def load_dataset(name: str) -> Dataset:
    """The dataset of that name, or the one that a YAML file of the user's describes."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return read_dataset_file(Path(name))
    known = {known.lower(): known for known in dataset_names()}
    if name.lower() not in known:
        raise InputError(
            f"There is no dataset called {name!r}",
            fix=f"choose of {', '.join(known.values())}; or give a YAML file of your own "
            "(docs/datasets.md)",
        )
    return read_dataset_file(_folder() / f"{known[name.lower()]}.yaml")


def read_dataset_file(path: Path) -> Dataset:
    """Read and check one file; a fault is told with the key that has it."""
    try:
        content = read_yaml(path, "The dataset file", fix="mend the line named")
    except FileNotFoundError:
        raise InputError("The dataset file does not exist", file=path) from None
    except OSError as error:
        raise InputError(f"The dataset file cannot be read: {error.strerror}", file=path) from None
    if not isinstance(content, dict):
        raise InputError("A dataset file must be a mapping of keys to values", file=path)
    try:
        return Dataset.model_validate(content)
    except ValidationError as error:
        raise InputError(
            "The dataset file is not valid: " + faults_of(error, "file"),
            file=path,
            fix="docs/datasets.md tells what may stand there, and where examples are",
        ) from None


def _folder() -> Path:
    return share_dir() / "config" / "datasets"
