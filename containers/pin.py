"""Ask the registry for the digest of the base image's tag, and write it wherever it stands.

    python containers/pin.py                          the tag of images.lock.yaml as it is now
    python containers/pin.py 3.11.15-slim-bookworm    another one

Needs a network, and brainlm installed (`make`'s .venv will do).
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from brainlm.files import write_text
from brainlm.fmriprep.images import Image
from brainlm.fmriprep.registry import resolve_digest

HERE = Path(__file__).resolve().parent
#: Every file that names the base image.
FILES = ("images.lock.yaml", "Dockerfile", "Dockerfile.gpu", "brainlm.def")


def pin(folder: Path = HERE, tag: str | None = None, registry: str | None = None) -> str:
    """Renew the base's tag and digest in the files of `folder`; return what they say now."""
    base = yaml.safe_load((folder / FILES[0]).read_text(encoding="utf-8"))["bases"]["python"]
    new = tag or base["tag"]
    about = {"name": "python", "version": None, "license": "surfaces"}
    digest = resolve_digest(Image(**about, **{**base, "tag": new}), registry)
    for name in FILES:
        text = (folder / name).read_text(encoding="utf-8")
        write_text(folder / name, text.replace(base["digest"], digest).replace(base["tag"], new))
    return f"{base['repository']}:{new}@{digest}"


if __name__ == "__main__":
    print(pin(tag=sys.argv[1] if len(sys.argv) > 1 else None))
