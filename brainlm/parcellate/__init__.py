"""From voxel series to parcel series."""
