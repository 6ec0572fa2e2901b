"""Simple models that a good one must beat; one file each."""
