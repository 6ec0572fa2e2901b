"""Removing nuisance signals from voxel series."""
