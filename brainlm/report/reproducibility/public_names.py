"""What may be told of images and of other pipelines, whose names can hold those of a place."""

from __future__ import annotations

import re

#: Registries that everybody knows; of any other, the host and the path tell whose it is.
_REGISTRIES = frozenset(
    {"docker.io", "ghcr.io", "quay.io", "gcr.io", "nvcr.io", "public.ecr.aws", "mcr.microsoft.com"}
)
_DIGEST = re.compile(r"@(sha256:[0-9a-f]{64})$")
#: How the names of well-known pipelines begin, in small letters and without underscores -> as they
#: are written.
_PIPELINES = {
    "fmriprep": "fMRIPrep",
    "fmripost-aroma": "fMRIPost-AROMA",
    "xcp-d": "XCP-D",  # not xcpEngine, the one before it
    "hcp": "HCP Pipelines",
    "uk biobank": "UK Biobank",
}


def public_image(image: str) -> str:
    """An address of an image; of a private registry only the image's name and digest are left."""
    scheme, mark, rest = image.rpartition("://")
    digest = _DIGEST.search(rest)
    name = rest[: digest.start()] if digest else rest
    if scheme not in ("", "docker", "oras"):
        return f"an image of the site, {_pinned(digest)}"
    host, slash, _ = name.partition("/")
    has_host = bool(slash) and (bool(re.search(r"[.:@]", host)) or host == "localhost")
    if not has_host or host in _REGISTRIES:
        return f"{scheme}{mark}{rest}"
    last = name.rpartition("/")[2].partition(":")[0]  # a tag may be of the site as well
    return f"{last} of a private registry, {_pinned(digest)}"


def _pinned(digest: re.Match[str] | None) -> str:
    return digest[1] if digest else "not pinned by a digest"


def public_pipeline(name: str) -> str:
    """A well-known pipeline with its version; any other is not named."""
    for start, written in _PIPELINES.items():
        if name.lower().replace("_", "-").startswith(start):
            version = re.search(r"\b\d+(?:\.\d+)+\b", name)
            return f"{written} {version[0]}" if version else written
    return "another pipeline"
