"""The masks published with ICA-AROMA: CSF, the brain's edge, and all outside the brain.

They were drawn by Pruim et al. (2015, NeuroImage 112:267) on FSL's 2 mm grid, and are fetched
once (`brainlm masks get`), checked against their checksums and kept in a cache.
"""

from __future__ import annotations

from pathlib import Path

from .errors import InputError
from .fetch import Pinned, cache_dir, fetch

#: The template in which they are drawn.
SPACE = "MNI152NLin6Asym"
LICENCE = "Apache-2.0"
CITATION = "Pruim RHR, et al. ICA-AROMA. NeuroImage 112:267-277, 2015."

_ADDRESS = (
    "https://raw.githubusercontent.com/maartenmennes/ICA-AROMA/"
    "7b627ae13b9b865c062f37b1f3bc1c9d07fd2406"
)
#: SHA-256 of `mask_<name>.nii.gz`.
MASKS = {
    "csf": "fd11a92641beeee9094eb8c3094c8e133ecc181f4fab4ee4f54fab99ca98bf8c",
    "edge": "1a91ca44717c968e98fa8b2208d426e67aa5e558c9cd3bb86371c8bd681f5aed",
    "out": "3d5d987918e877a9fa515b70d8a0f580ff62947bbaf8f2d6a3fcbeb721f743b0",
}


def pinned(name: str) -> Pinned:
    """One of the masks as it lies in its repository."""
    return Pinned(
        what=f"mask {name} of ICA-AROMA",
        url=f"{_ADDRESS}/mask_{name}.nii.gz",
        digest=MASKS[name],
        command="brainlm masks get --from FOLDER",
    )


def mask_path(name: str) -> Path:
    """Where a mask lies, or will lie once fetched."""
    return cache_dir("masks") / "aroma" / f"mask_{name}.nii.gz"


def masks_here() -> bool:
    """Whether all of them are on this machine, with the right bytes."""
    return all(pinned(name).is_at(mask_path(name)) for name in MASKS)


def fetch_masks(
    source: str | None = None, *, attempts: int = 4, pause_s: float = 1.0
) -> dict[str, Path]:
    """Bring the masks into our cache, unless they are there.

    `source` is a folder, or the address of one, to take them from instead.
    """
    paths = {name: mask_path(name) for name in MASKS}
    for name, path in paths.items():
        if not pinned(name).is_at(path):
            origin = None if source is None else f"{source.rstrip('/')}/{path.name}"
            fetch(pinned(name), path, origin, attempts=attempts, pause_s=pause_s)
    return paths


def mask_problems(template: str, space_ok: bool) -> list[InputError]:
    """What keeps the masks from being used with data in `template`: up to two things."""
    problems = []
    if template != SPACE and not space_ok:
        problems.append(
            InputError(
                f"The masks of ICA-AROMA are drawn in {SPACE}, the data is normalised to "
                f"{template}: the two differ by some mm at places",
                fix="set ica.masks: template in config/config.yaml to use the template's own "
                "tissues, or ica.masks_space_ok: true to accept that",
            )
        )
    absent = [name for name in MASKS if not pinned(name).is_at(mask_path(name))]
    if absent:
        problems.append(
            InputError(
                f"The masks of ICA-AROMA are not (whole) on this machine: {', '.join(absent)}",
                file=mask_path(absent[0]).parent,
                fix="`brainlm masks get` where there is a network, else with --from FOLDER; or "
                "set ica.masks: template in config/config.yaml",
            )
        )
    return problems


def mask_sources() -> dict[str, str]:
    """SHA-256 of each mask, for sidecars."""
    return {f"masks::mask_{name}.nii.gz": digest for name, digest in MASKS.items()}
