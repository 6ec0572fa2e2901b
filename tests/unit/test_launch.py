"""Command lines and resources of trainings, as the Slurm plugin reads them."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest
from snakemake.resources import ResourceList
