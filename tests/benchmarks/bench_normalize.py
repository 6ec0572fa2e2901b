"""How far normalisation leaves each point of the brain from its place, on heads with known truth.

`python -m tests.benchmarks.bench_normalize [HEADS]`. A phantom's head is the template under a
known deformation (2.5 mm RMS beyond its affine). For each of two ways, through a 2 mm T1w (every
second one with skull) and from a 4 mm BOLD reference alone, the distance in mm between where
the transforms put the template's brain voxels and where they truly lie, by the affine and by
SyN on top; then SyN's CPU seconds, and the Dice of the template's grey matter with the head's, as
either brings it to the template. The last table: Dice of the extracted brain with the true one.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from brainlm.cli._single_thread import pin_libraries
from brainlm.images import Image
from brainlm.phantom import anatomy, scene
from brainlm.phantom.parameters import SPACE, Parameters, stream
from brainlm.preproc.grids import world_points
from brainlm.preproc.masks import dice, foreground_mask
from brainlm.preproc.nonlinear import warp_boldref
from brainlm.preproc.normalize import bold_to_t1w, bold_to_template, even_out, normalize_anat
from brainlm.preproc.pyramid import voxel_sizes
from brainlm.tissues import Tissues, load_tissues
from brainlm.warps import Warp

ZOOM = 3.0


def main(heads: int = 2) -> None:
    """Print one line per head and way."""
    pin_libraries()  # ants is not loaded before it registers
    tissues = load_tissues(SPACE, ZOOM)
    print(f"{'head':<6}{'way':<6}{'affine mm':>12}{'SyN mm':>10}{'90% mm':>10}{'CPU s':>8}", end="")
    print(f"{'smallest Jacobian':>20}{'max mm':>8}{'GM affine':>11}{'GM SyN':>8}")
    brains = []
    for number in range(heads):
        head, skull = _head(number), number % 2 == 1
        boldref = _boldref(head, number, skull)
        t1w = anatomy.make_t1w(head, 2.0, skull, stream(number, "T1w"))
        t1w = Image(t1w.data.astype(np.float32), t1w.affine)

        plain = normalize_anat(t1w, tissues)
        began = time.process_time()
        found = normalize_anat(t1w, tissues, "syn")
        seconds = time.process_time() - began
        assert found.nonlinear is not None
        to_mni = bold_to_t1w(boldref, Image(found.brain, t1w.affine), ZOOM) @ found.t1w_to_mni
        _print(number, "T1w", head, tissues, to_mni, found.nonlinear.warp, seconds)
        brains.append([_brain_dice(head, t1w, brain) for brain in (plain.brain, found.brain)])

        began = time.process_time()
        to_mni = bold_to_template(boldref, tissues)
        warp = warp_boldref(boldref, to_mni, tissues).warp
        seconds = time.process_time() - began
        _print(number, "EPI", head, tissues, to_mni, warp, seconds)
    print("brain extracted from the T1w, Dice by affine and by SyN:")
    for number, (affine, syn) in enumerate(brains):
        print(f"{number:<6d}{affine:.3f}  {syn:.3f}")


def _head(number: int) -> anatomy.Head:
    return anatomy.draw_head(Parameters().deform_mm, stream(number, "anatomy"))


def _boldref(head: anatomy.Head, number: int, skull: bool) -> Image:
    """The mean of a run, nearly free of noise, with coil gain and signal loss near air."""
    nothing = Image(np.zeros((2, 2, 2), dtype=np.int16), np.eye(4))
    seen = scene.make_scene(head, nothing, 1, number, 4.0, skull)
    noise = stream(number, "noise").normal(0, 5, seen.shape)
    image = Image(np.clip(seen.baseline + noise, 0, None).astype(np.float32), seen.affine)
    return even_out(image, foreground_mask(image.data, voxel_sizes(image.affine)))


def _print(
    number: int,
    way: str,
    head: anatomy.Head,
    tissues: Tissues,
    to_mni: np.ndarray,
    warp: Warp,
    seconds: float,
) -> None:
    points = world_points(tissues.affine, tissues.brain)
    truth = head.to_scanner(points[:3].T).T
    moved = points.copy()
    moved[:3] += warp.at(points)
    affine, syn = (np.linalg.norm((to_mni @ x)[:3] - truth, axis=0) for x in (points, moved))
    lowest = warp.jacobian()[tissues.brain].min()
    longest = np.linalg.norm(warp.displacement, axis=-1)[tissues.brain].max()
    print(
        f"{number:<6d}{way:<6}{np.median(affine):12.2f}{np.median(syn):10.2f}"
        f"{np.percentile(syn, 90):10.2f}{seconds:8.0f}{lowest:20.2f}{longest:8.1f}"
        f"{_grey_dice(head, to_mni @ points, points):11.3f}"
        f"{_grey_dice(head, to_mni @ moved, points):8.3f}",
        flush=True,
    )


def _grey_dice(head: anatomy.Head, found: np.ndarray, points: np.ndarray) -> float:
    """Of the template's grey matter at `points` (4, n) with the head's at `found` (4, n)."""
    grey = anatomy.template_maps()["GM"]
    there = anatomy.sample(grey, head.to_template(found[:3].T)) > 0.5
    return dice(there, anatomy.sample(grey, points[:3].T) > 0.5)


def _brain_dice(head: anatomy.Head, t1w: Image, brain: np.ndarray) -> float:
    points = world_points(t1w.affine, np.ones(t1w.data.shape, dtype=bool))[:3].T
    tissue = anatomy.sample(anatomy.template_maps()["T1w"], head.to_template(points))
    return dice(brain > 0, (tissue > 0.05).reshape(brain.shape))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
