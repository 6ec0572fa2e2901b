"""Parcellations: registry, download, the offline stand-in, checks."""
