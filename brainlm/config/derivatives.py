"""Options for data that another pipeline has preprocessed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from .base import Positive, Section


class Derivatives(Section):
    """Files of other pipelines, where engine is not native."""

    layout: Literal["auto", "fmriprep", "xcpd", "hcp", "ukb", "tables"] = Field(
        "auto",
        description="who wrote the files: fmriprep (also fMRIPost-AROMA), xcpd, hcp, ukb (field "
        "20227), tables (a series of parcels per file); auto: as the folder shows",
    )
    read: Literal["auto", "volume", "dense", "parcels"] = Field(
        "auto",
        description="volume: 4-D images; dense: CIFTI series, already denoised; parcels: tables "
        "with a column per parcel; auto: parcels for tables, else volume",
    )
    space_ok: bool = Field(
        False,
        description="read series in another MNI space than space.template as if they were in it; "
        "the two differ by some mm in places",
    )
    order: Annotated[int, Field(ge=1, le=5)] = Field(
        3, description="B-spline order where a series must be moved to the study's grid"
    )
    components: Literal["reuse", "own"] = Field(
        "reuse",
        description="for denoise.method aroma: reuse the components that fMRIPrep (to 23.0) or "
        "fMRIPost-AROMA found where they are there, or look for our own",
    )
    aroma_dir: Path | None = Field(
        None,
        description="the dataset of fMRIPost-AROMA that goes with fMRIPrep's, where it is another",
    )
    tr: Positive | None = Field(
        None, description="repetition time of runs of which no file tells it, s"
    )
