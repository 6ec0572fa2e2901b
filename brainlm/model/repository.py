"""A model's folder from a repository on the Hugging Face Hub, and into one.

The Hub's own client does the work, with its cache, its environment variables (HF_ENDPOINT, HF_HOME,
HF_HUB_OFFLINE) and its token; that token is never read here.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import BrainLMError, DataError, InputError, ResourceError
from ..provenance import sha256_file

#: What the folder of a model of ours is made of (and all that is ever uploaded of it).
MODEL_FILES = (
    "README.md",
    "config.json",
    "model.safetensors",
    "normalization.safetensors",
    "parcels.tsv",
)
#: Answers that trying again would not change, beside those of missing rights.
_REFUSED = (400, 409, 413, 422)
#: Weights as some released models have them, fetched where there are no safetensors.
_TORCH_WEIGHTS = "pytorch_model.bin"


def fetch_model(
    repo: str,
    subfolder: str | None = None,
    revision: str | None = None,
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """The folder of the model of a repository, in the Hub's cache; downloaded where it must be.

    A model of ours, or one as BrainLM's authors released it (config.json and weights). `revision`:
    a branch, a tag or a commit. The options are those of the Hub's client; without a `token` it
    takes the one you logged in with. Whether the files belong together is checked when they are
    read.
    """

    def snapshot(*patterns: str) -> Path:
        with _told(f"{repo} is no folder here and cannot be fetched"):
            from huggingface_hub import snapshot_download

            folder = snapshot_download(
                repo,
                revision=revision,
                allow_patterns=list(patterns),
                token=token,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                library_name="brainlm",
            )
        return Path(folder)

    within = f"{subfolder}/" if subfolder else ""
    folder = snapshot(*(within + name for name in MODEL_FILES)) / within
    if not (folder / "config.json").is_file():
        inside = sorted(
            path.parent.name for path in snapshot("*/config.json").glob("*/config.json")
        )
        raise InputError(
            f"There is no {within}config.json in the repository {repo}",
            fix=f"choose a subfolder: {', '.join(inside)}" if inside else "is it a model's?",
        )
    if not (folder / "model.safetensors").is_file():
        snapshot(within + _TORCH_WEIGHTS)
    return folder


def upload_model(
    folder: str | Path,
    repo: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    message: str | None = None,
) -> str:
    """Make a repository of a model's folder, or a commit in one that is there; return its address.

    `private` decides for a new repository (None: as the Hub does by default); with True a
    repository that is public is refused. `revision`: a branch, made if it is not there. Weights
    that BrainLM's authors released, and what was fine-tuned from them, go into private
    repositories only: their licence does not let them be passed on changed.
    """
    folder = Path(folder)
    _check_folder(folder)
    if is_released(folder) and not private:
        raise InputError(
            "These weights are, or come from, those that BrainLM's authors released under "
            "CC BY-NC-ND 4.0: they must not be passed on changed, which includes this form",
            file=folder,
            fix="for your own use alone: private=True; others can fetch the authors' repository "
            "themselves",
        )
    with _told(f"The repository {repo} cannot be written"):
        from huggingface_hub import HfApi

        api = HfApi(library_name="brainlm")
        api.create_repo(repo, repo_type="model", private=private, exist_ok=True)
        if private and not api.model_info(repo).private:
            raise InputError(
                f"The repository {repo} exists and is public",
                fix="choose another name, or make it private on the Hub first",
            )
        if revision:
            api.create_branch(repo, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=list(MODEL_FILES),
            commit_message=message or "BrainLM model",
            revision=revision,
        )
    return str(commit.commit_url)


def is_released(folder: Path) -> bool:
    """Whether a model's weights are, or come from, those that BrainLM's authors released."""
    if _read(folder / "config.json").get("released"):
        return True
    # Imported before config.json told: the weights' sidecar has always done so.
    sidecar = folder / "model.json"
    return sidecar.is_file() and bool(_read(sidecar).get("Released"))


def _check_folder(folder: Path) -> None:
    """Refuse what is no whole model of ours."""
    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"This is no model's folder: {', '.join(missing)} is not there",
            file=folder,
            fix="train a model first, or save one: `BrainLM.save_pretrained(folder)`",
        )
    for name, expected in dict(_read(folder / "config.json").get("sha256", {})).items():
        if sha256_file(folder / name) != expected:
            raise DataError(
                f"{name} is not the one this model was trained with",
                file=folder / name,
                fix="train it again, or copy the whole folder anew",
            )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise DataError("This is no JSON object", file=path, fix="copy the folder anew")
    return content


@contextlib.contextmanager
def _told(failed: str) -> Iterator[None]:
    """Turn what the Hub's client raises into what happened and how to mend it.

    Its own messages are left out of ours where we know better: they are long.
    """
    try:
        yield
    except ImportError:
        raise InputError(
            f"{failed}: huggingface_hub is not installed",
            fix="`pip install huggingface_hub`, or give the folder of a model",
        ) from None
    except BrainLMError:
        raise
    except Exception as error:
        ours = _explain(error, failed)
        if ours is None:
            raise
        raise ours from error


def _explain(error: Exception, failed: str) -> BrainLMError | None:
    """Our error for one of the Hub's client; None for others (a full disk, a fault of ours)."""
    from huggingface_hub import errors

    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(f"{failed}: the Hub knows no such revision", fix="check the revision")
    if isinstance(error, errors.GatedRepoError):
        return InputError(f"{failed}: its owners grant access", fix="ask for it on its page")
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return InputError(
            f"{failed}: the Hugging Face Hub shows no such repository to you",
            fix="check the name; for a private one, or to upload, log in: `hf auth login`",
        )
    if isinstance(error, errors.LocalTokenNotFoundError) or _status(error) in (401, 403):
        return InputError(
            f"{failed}: the Hugging Face Hub does not let you",
            fix="log in with a token that may do so: `hf auth login`",
        )
    if _status(error) in _REFUSED or (isinstance(error, ValueError) and "README.md" in str(error)):
        return InputError(
            f"{failed}: the Hugging Face Hub refuses it ({' '.join(str(error).split())[:200]})",
            fix="mend what it names",
        )
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return InputError(
            f"{failed}: HF_HUB_OFFLINE is set, and it is not in the Hub's cache",
            fix="check the name; or unset it; or download the model elsewhere and give its folder",
        )
    unreachable = isinstance(error, errors.LocalEntryNotFoundError | errors.HfHubHTTPError)
    if unreachable or _is_network(error):
        return ResourceError(
            f"{failed}: the Hugging Face Hub does not answer ({type(error).__name__})",
            fix="check the name and the network; or download it elsewhere and give its folder",
        )
    return None


def _status(error: Exception) -> int | None:
    """The HTTP status that an error carries."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _is_network(error: Exception) -> bool:
    """Whether the HTTP library below the Hub's client raised this (requests, httpx, httpx2)."""
    kinds = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    return bool(kinds & {"requests", "httpx", "httpx2", "urllib3"}) or isinstance(
        error, ConnectionError | TimeoutError
    )
