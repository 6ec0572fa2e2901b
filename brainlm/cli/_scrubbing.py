"""What sidecars say of volumes that were scrubbed: a series says it to the one made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FIELDS = ("Scrubbing", "CensoredVolumes", "KeptVolumes")


def scrubbing_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """Of a sidecar's fields, those about scrubbed volumes."""
    return {name: about[name] for name in _FIELDS if name in about}
