"""Parcellations: the table of parcels, the registry, downloads, the offline stand-in.

Stages import the submodule that they need, so that their code digest covers that one alone.
"""

from .fetch import available_atlas
from .table import load_table, read_table

__all__ = ["available_atlas", "load_table", "read_table"]
