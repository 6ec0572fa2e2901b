"""The field from two EPIs of opposite phase encoding, which show the same head pushed apart.

Model (Andersson et al. 2003, NeuroImage 20:870): with shift `s` in voxels, and `q` of +1 or -1
(times the ratio of the readout times) for each image, the undistorted images

    U_i(v)  =  I_i(P_i v + q_i s(v)) * (1 + q_i ds/dv)

are equal, where `P_2` is the head's small rigid movement between the two. `s` minimises the
squared difference plus its bending energy, by Gauss-Newton, from smooth images to sharp ones;
the pose is aligned anew in between. The normal equations are never formed: conjugate gradients
apply them voxel by voxel, preconditioned in the cosine basis, in which the bending energy is
diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.sparse.linalg import LinearOperator, cg

from ..geometry import Array, grid_center
from ..images import Image
from .alignment import align
from .grids import shrink
from .masks import dilate, foreground_mask
from .pyramid import make_level, sample, spline_coefficients, voxel_sizes

#: Smoothness of the images (FWHM, mm) at each level, and the weight of the bending energy there.
_LEVELS = ((12.0, 300.0), (8.0, 100.0), (4.0, 30.0), (0.0, 30.0))
_STEPS, _CG_STEPS = 6, 40
#: Working voxels are no smaller than about this, mm: fields are smooth.
_WORK_MM = 4.0
_RIM_MM = 8.0
_ALIGN_MM = 4.0
#: Weight that keeps shifts small where nothing is seen.
_RIDGE = 1e-4


@dataclass(frozen=True)
class Opposite:
    """What two opposite EPIs tell, in the frame of the first."""

    field: Image  # Hz, (x, y, z); its median in the head is 0
    undistorted: Image  # mean of the two
    correlation_before: float  # of the two images inside the head
    correlation: float  # of the undistorted two


def field_from_opposite(
    first: Image, second: Image, axis: int, voxels_per_hz: tuple[float, float]
) -> Opposite:
    """Estimate the field from two EPIs (x, y, z) on grids of equal shape and voxels.

    `voxels_per_hz` are the signed shifts along `axis` of the two per Hz.
    """
    small_1, small_2 = shrink(first, _WORK_MM), shrink(second, _WORK_MM)
    block = voxel_sizes(small_1.affine)[axis] / voxel_sizes(first.affine)[axis]
    unit = abs(voxels_per_hz[0])
    pair = _Pair(small_1, small_2, axis, (voxels_per_hz[0] / unit, voxels_per_hz[1] / unit))
    shift = pair.solve()
    field = Image((shift * block / unit).astype(np.float32), small_1.affine)
    one, two = pair.undistorted(shift)
    raw_one, raw_two = pair.undistorted(np.zeros_like(shift))
    return Opposite(
        field,
        Image(np.clip((one + two) / 2, 0, None).astype(np.float32), small_1.affine),
        _correlation(raw_one[pair.head], raw_two[pair.head]),
        _correlation(one[pair.head], two[pair.head]),
    )


class _Pair:
    """Two opposite images on working voxels, and the pose of the head in the second."""

    def __init__(self, first: Image, second: Image, axis: int, signs: tuple[float, float]):
        self.affine, self.axis, self.signs = first.affine, axis, signs
        self.sizes = voxel_sizes(first.affine)
        self.center = grid_center(first.data.shape, first.affine)
        heads = [foreground_mask(image.data, self.sizes) for image in (first, second)]
        self.head = heads[0] & heads[1]
        self.images = [
            Image(image.data / image.data[head].mean(), image.affine)
            for image, head in zip((first, second), heads, strict=True)
        ]
        self.weight = dilate(heads[0] | heads[1], self.sizes, _RIM_MM).astype(float)
        self.pose = np.eye(4)
        self.grid = np.indices(first.data.shape, dtype=float).reshape(3, -1)

    def solve(self) -> Array:
        """The shift (x, y, z) in working voxels, of the first image if its sign is +1."""
        shift = np.zeros(self.weight.shape)
        for fwhm, stiffness in _LEVELS:
            smooth = [spline_coefficients(i.data, i.affine, fwhm) for i in self.images]
            shift = self._settle(smooth, shift, stiffness)
            shift -= np.median(shift[self.head])
            self._align(shift)
        return self._settle(smooth, shift, stiffness)

    def undistorted(self, shift: Array) -> tuple[Array, Array]:
        """Both images (x, y, z) with the shift undone."""
        sharp = [spline_coefficients(i.data, i.affine) for i in self.images]
        one, two = (self._undo(sharp[k], shift, k)[0] for k in (0, 1))
        return one, two

    def _undo(self, coefficients: NDArray, shift: Array, which: int) -> tuple[Array, Array, Array]:
        """An undistorted image, and the two parts of its change with the shift.

        d U = along * d s + piled * d s', with s' the slope of the shift.
        """
        pull = np.eye(4)
        if which == 1:
            pull = np.linalg.inv(self.images[1].affine) @ self.pose @ self.affine
        places = pull[:3, :3] @ self.grid + pull[:3, 3:]
        sign = self.signs[which]
        places[self.axis] += sign * shift.ravel()
        step = np.zeros((3, 1))
        step[self.axis] = 0.5
        shape = shift.shape
        value = sample(coefficients, places).reshape(shape).astype(float)
        ahead, behind = (sample(coefficients, places + s).reshape(shape) for s in (step, -step))
        stretch = 1 + sign * _slope(shift, self.axis)
        return value * stretch, sign * (ahead - behind) * stretch, sign * value

    def _settle(self, smooth: list[NDArray], shift: Array, stiffness: float) -> Array:
        """Gauss-Newton at one level; a step that does not help is halved, then given up."""
        cost, system = self._linearise(smooth, shift, stiffness)
        for _ in range(_STEPS):
            step, length = self._step(*system, stiffness), 1.0
            while length > 0.1:
                trial = shift + length * step
                new_cost, new_system = self._linearise(smooth, trial, stiffness)
                if new_cost < cost:
                    break
                length /= 2
            else:
                break
            gain = (cost - new_cost) / cost
            shift, cost, system = trial, new_cost, new_system
            if gain < 1e-3:
                break
        return shift

    def _linearise(
        self, smooth: list[NDArray], shift: Array, stiffness: float
    ) -> tuple[float, tuple[Array, Array, Array]]:
        """The cost, and along (x, y, z), piled (x, y, z) and gradient of the cost's half."""
        (one, along_1, piled_1), (two, along_2, piled_2) = (
            self._undo(smooth[k], shift, k) for k in (0, 1)
        )
        weight = self.weight
        residual = weight * (one - two)
        along, piled = weight * (along_1 - along_2), weight * (piled_1 - piled_2)
        bent = stiffness * self._bending(shift) + _RIDGE * shift
        gradient = along * residual - _slope(piled * residual, self.axis) + bent
        cost = float((residual**2).sum() + (shift * bent).sum())
        return cost, (along, piled, gradient)

    def _step(self, along: Array, piled: Array, gradient: Array, stiffness: float) -> Array:
        """Solve the normal equations for the step (x, y, z)."""
        shape, axis = along.shape, self.axis
        waves = [
            (2 - 2 * np.cos(np.pi * np.arange(n) / n)) / size**2
            for n, size in zip(shape, self.sizes, strict=True)
        ]
        k2 = waves[0][:, None, None] + waves[1][None, :, None] + waves[2][None, None, :]
        floor = float((along**2).mean()) + _RIDGE + 1e-3
        diagonal = floor + stiffness * k2**2

        def normal(flat: Array) -> Array:
            step = flat.reshape(shape)
            change = along * step + piled * _slope(step, axis)
            back = along * change - _slope(piled * change, axis)
            return (back + stiffness * self._bending(step) + _RIDGE * step).ravel()

        def precondition(flat: Array) -> Array:
            spectrum = fft.dctn(flat.reshape(shape), norm="ortho")
            return np.asarray(fft.idctn(spectrum / diagonal, norm="ortho")).ravel()

        size = along.size
        solution, _ = cg(
            LinearOperator((size, size), matvec=normal, dtype=float),
            -gradient.ravel(),
            rtol=1e-3,
            maxiter=_CG_STEPS,
            M=LinearOperator((size, size), matvec=precondition, dtype=float),
        )
        return np.asarray(solution).reshape(shape)

    def _bending(self, shift: Array) -> Array:
        return self._laplacian(self._laplacian(shift))

    def _laplacian(self, values: Array) -> Array:
        return np.asarray(
            sum(
                ndimage.correlate1d(values, [1.0, -2.0, 1.0], axis=k, mode="reflect") / size**2
                for k, size in enumerate(self.sizes)
            )
        )

    def _align(self, shift: Array) -> None:
        """Move the pose of the second image to where its undistorted self meets the first."""
        one, two = self.undistorted(shift)
        level = make_level(one, self.affine, self.weight > 0, self.center, _ALIGN_MM)
        moved = spline_coefficients(two.astype(np.float32), self.affine, _ALIGN_MM)
        found = align(moved, self.affine, level, np.eye(4), iterations=20, tolerance_mm=1e-3)
        if found.converged:
            self.pose = self.pose @ found.pose


def _slope(values: Array, axis: int) -> Array:
    """Central difference; its transpose is its negative, since beyond the grid all is 0."""
    return np.asarray(ndimage.correlate1d(values, [-0.5, 0.0, 0.5], axis=axis, mode="constant"))


def _correlation(one: NDArray, two: NDArray) -> float:
    return float(np.corrcoef(one, two)[0, 1])
