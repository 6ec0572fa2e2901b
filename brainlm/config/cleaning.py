"""Options of denoising and parcellation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .base import NonNegative, OrOff, Positive, Section, Share
from .rule import parse_rule


class Ica(Section):
    """Independent components of a run, for denoise.method: aroma (ICA-AROMA)."""

    smoothing_mm: NonNegative = Field(
        6.0, description="FWHM of the smoothing that the components are sought in, mm"
    )
    high_pass_s: NonNegative = Field(
        100.0, description="cut-off period of the cosines taken out before, s"
    )
    components: Annotated[int, Field(ge=0)] = Field(
        0, description="how many; 0: estimated for each run (Minka's Laplace evidence)"
    )
    restarts: Annotated[int, Field(ge=1)] = Field(
        1,
        description="searches from different starts; above 1, one more from what they agree on",
    )
    masks: Literal["template", "aroma"] = Field(
        "template",
        description="CSF and brain edge: from the template's tissue maps, or those published "
        "with ICA-AROMA (`brainlm masks get`)",
    )
    masks_space_ok: bool = Field(
        False,
        description="use the published masks although they were drawn in another MNI space "
        "(MNI152NLin6Asym) than the data's",
    )
    rule: str = Field(
        "",
        description="your own rule for noise in place of ICA-AROMA's, on edge_fract, csf_fract, "
        "max_RP_corr, HFC and variance_explained, e.g. 'HFC > 0.4 or csf_fract > 0.1'",
    )
    classifier: tuple[str, ...] = Field(
        (),
        description="your own program in place of ICA-AROMA's rule, e.g. [python, judge.py]; run "
        "in the study folder, see docs/denoising.md",
    )
    seed: Annotated[int, Field(ge=0)] = Field(1, description="of the search and of resamplings")

    @model_validator(mode="after")
    def _one_judge(self) -> Ica:
        if self.rule and self.classifier:
            raise ValueError("rule and classifier exclude each other")
        if self.rule:
            parse_rule(self.rule)
        return self


Method = Literal["none", "motion6", "motion24", "36p", "acompcor", "acompcor50", "aroma", "fix"]


class Denoise(Section):
    """Temporal filtering, scrubbing and nuisance regression, in one least-squares fit."""

    method: Method = Field(
        "aroma",
        description="none: the filter alone; 6 motion parameters; 24 (with derivatives and "
        "squares); 36p: 24 and white matter, CSF and global signal expanded alike; acompcor: 24 "
        "and 5 + 5 components of white matter and CSF; acompcor50: as many as explain half of "
        "their variance; aroma: independent components that ICA-AROMA takes for noise; fix: the "
        "series is clean already (FIX), it is checked and passed on without any filter",
    )
    mean_signals: Literal["auto"] | tuple[Literal["global_signal", "csf", "white_matter"], ...] = (
        Field(
            "auto",
            description="mean signals in the same fit, whatever the method, e.g. [global_signal]; "
            "auto: [white_matter, csf] with aroma, none with the others",
        )
    )
    tissue_components: Literal["auto"] | Annotated[int, Field(ge=0, le=50)] = Field(
        "auto",
        description="leading components (aCompCor) of white matter and of CSF each, in the same "
        "fit, whatever the method; auto: 2 with aroma, 0 with the others",
    )
    aroma: Literal["nonaggressive", "aggressive", "orthogonal"] = Field(
        "nonaggressive",
        description="noise components: nonaggressive takes out what only they explain; aggressive "
        "all that they could; orthogonal what they explain once the others are taken out of them",
    )
    high_pass: Literal["cosine", "gaussian"] = Field(
        "cosine",
        description="cosine: slow cosines are fitted; gaussian: a Gaussian-weighted running line "
        "is subtracted, as by FSL (UK Biobank: gaussian with high_pass_s 100)",
    )
    high_pass_s: NonNegative = Field(
        100.0,
        description="cut-off period, s; 0 switches it off; gaussian: twice the sigma, as in FEAT",
    )
    low_pass_s: NonNegative = Field(
        0.0,
        description="period below which cosines are fitted too (band-pass), s, e.g. 10; 0: off",
    )
    scrub: Annotated[Literal["off", "mark", "censor", "interpolate"], OrOff] = Field(
        "off",
        description="volumes with motion: mark lists them; censor fits without them and leaves "
        "them out of the series; interpolate fits without them and fills the gaps",
    )
    scrub_fd_mm: Positive = Field(0.5, description="FD above which a volume is scrubbed, mm")
    scrub_dvars: NonNegative = Field(
        0.0, description="standardised DVARS above which a volume is scrubbed as well; 0: never"
    )
    scrub_pad: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] = Field(
        (0, 0), description="volumes scrubbed before and after each of these, too"
    )

    @model_validator(mode="after")
    def _a_band_is_left(self) -> Denoise:
        if self.low_pass_s and self.high_pass_s and self.low_pass_s >= self.high_pass_s:
            raise ValueError("low_pass_s must be shorter than high_pass_s, to leave a band")
        return self

    @model_validator(mode="after")
    def _clean_is_clean(self) -> Denoise:
        asked = (self.mean_signals, self.tissue_components)
        if self.method == "fix" and not all(choice in ("auto", (), 0) for choice in asked):
            raise ValueError(
                "method fix takes nothing out: mean_signals and tissue_components go with others"
            )
        return self


def chosen_means(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The mean signals that the `denoise` options ask for.

    `auto` adds white matter and CSF to the components of ICA-AROMA, as its authors do (Pruim et
    al. 2015): what beats in CSF or shades the whole image often has no component of its own.
    """
    asked = options["mean_signals"]
    if asked == "auto":
        return ("white_matter", "csf") if options["method"] == "aroma" else ()
    return tuple(asked)


def chosen_components(options: Mapping[str, Any]) -> int:
    """How many components of each tissue the `denoise` options ask for.

    `auto` adds two to those of ICA-AROMA: interpolating slices to one moment scatters the rhythms
    of heart and breath over many weak components of the whole brain (docs/denoising.md).
    """
    asked = options["tissue_components"]
    if asked == "auto":
        return 2 if options["method"] == "aroma" else 0
    return int(asked)


class Parcellate(Section):
    """The series of each parcel."""

    estimator: Literal["mean", "median", "eigenvariate", "weighted"] = Field(
        "mean",
        description="how a parcel's voxels become one series: mean; median; eigenvariate: first "
        "principal component, at the parcel's mean level; weighted: mean weighted by the "
        "template's grey-matter share",
    )
    min_coverage: Share = Field(
        0.5, description="parcels with a smaller share of usable voxels become NaN, never 0"
    )
