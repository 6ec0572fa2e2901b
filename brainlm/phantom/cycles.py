"""Where the heart and the breath show in the head.

The pulse moves blood and CSF: it is strong at the base of the brain, where the large arteries
are (Tong & Frederick 2014, Front. Hum. Neurosci. 8:196), and in CSF. The chest changes the magnetic
field in the head: with each breath the image shifts along the phase-encoding axis, by up to a tenth
of a voxel, and is shaded by up to 1% (Raj et al. 2000, Phys. Med. Biol. 45:3809), less with the
distance from the lungs. docs/phantom.md compares the sizes with measured ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Points = NDArray[np.floating[Any]]

#: Template mm of large arteries and of the pools that they beat on, and the SD in mm of their
#: reach: circle of Willis, basilar artery, middle cerebral arteries, anterior cerebral artery,
#: fourth ventricle, third ventricle.
ARTERIES = (
    ((0, 2, -18), 13),
    ((0, -26, -34), 12),
    ((40, 2, -8), 10),
    ((-40, 2, -8), 10),
    ((0, 34, 4), 9),
    ((0, -44, -32), 9),
    ((0, -12, 2), 8),
)
#: Far from these, CSF beats with so much of the amplitude; tissue close to them likewise.
_FAR_CSF, _CLOSE_TISSUE = 0.25, 0.25
#: From the lungs to the middle of the brain, mm: the field of a dipole falls with the cube.
_LUNGS_MM = 300.0


def closeness(points: Points) -> Floats:
    """How near template points (n, 3) are to a large artery, 0 to 1."""
    near = np.zeros(len(points))
    for place, reach in ARTERIES:
        distance = ((points - np.array(place)) ** 2).sum(axis=1)
        near = np.maximum(near, np.exp(-distance / (2 * reach**2)))
    return near.astype(np.float32)


def pulsatility(csf: Points, close: Points) -> Floats:
    """Share (n,) of the pulse's amplitude in voxels, from CSF share and `closeness` (n,)."""
    in_csf = csf * (_FAR_CSF + (1 - _FAR_CSF) * close)
    return np.asarray(in_csf + (1 - csf) * _CLOSE_TISSUE * close, dtype=np.float32)


def breathing(baseline: Floats, height_mm: Floats, shift: float, shade: float) -> Floats:
    """Change (x, y, z), in image units, that full inspiration makes to `baseline` (x, y, z).

    `height_mm` is how far each voxel lies above the middle of the brain; there the image moves by
    `shift` voxels along the second axis and brightens by the share `shade`.
    """
    field = (_LUNGS_MM / (_LUNGS_MM + height_mm)) ** 3
    return np.asarray(field * (shade * baseline - shift * np.gradient(baseline, axis=1)))
