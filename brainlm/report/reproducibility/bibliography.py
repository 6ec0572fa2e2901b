"""What a methods text cites, as BibTeX and in brackets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

#: A citation in a text, as Pandoc writes it.
CITED = re.compile(r"\[@([a-z0-9-]+(?:; @[a-z0-9-]+)*)\]")


@dataclass(frozen=True)
class Entry:
    """A publication."""

    kind: str  # article, inproceedings
    author: str  # as BibTeX has it
    title: str
    venue: str  # journal or proceedings
    year: int
    volume: str = ""
    pages: str = ""

    @property
    def short(self) -> str:
        """`Power et al., 2012`."""
        names = self.author.split(" and ")
        last = names[0].split(",")[0].replace("{", "").replace("}", "")
        if len(names) == 2 and names[1] != "others":
            return f"{last} and {names[1].split(',')[0]}, {self.year}"
        return f"{last} et al., {self.year}" if len(names) > 1 else f"{last}, {self.year}"

    @property
    def reference(self) -> str:
        """A line of a list of references."""
        author = self.author.replace(" and others", ", et al").replace(" and ", "; ")
        place = self.venue
        place += f" {self.volume}" if self.volume else ""
        place += f":{self.pages}" if self.pages else ""
        plain = self.title.replace("{", "").replace("}", "")
        return f"{author}. {plain}. {place}, {self.year}."

    def bibtex(self, key: str) -> str:
        """The entry, fields in a fixed order."""
        where = "journal" if self.kind == "article" else "booktitle"
        fields = {
            "author": self.author,
            "title": self.title,
            where: self.venue,
            "year": str(self.year),
            "volume": self.volume,
            "pages": self.pages.replace("-", "--"),
        }
        lines = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
        return f"@{self.kind}{{{key},\n" + ",\n".join(lines) + "\n}\n"


def _article(author: str, title: str, journal: str, year: int, volume: str, pages: str) -> Entry:
    return Entry("article", author, title, journal, year, volume, pages)


# A line for each, however long: a table to look things up in.
# fmt: off
# ruff: noqa: E501
ENTRIES: dict[str, Entry] = {
    "ortegacaro2024": Entry("inproceedings", "Ortega Caro, J. and Fonseca, A. H. O. and others", "{BrainLM}: A foundation model for brain activity recordings", "International Conference on Learning Representations", 2024),
    "he2022": Entry("inproceedings", "He, K. and others", "Masked autoencoders are scalable vision learners", "IEEE/CVF Conference on Computer Vision and Pattern Recognition", 2022),
    "nemati2020": _article("Nemati, S. and others", "A unique brain connectome fingerprint predates and predicts response to antidepressants", "iScience", 2020, "23", "100800"),
    "power2012": _article("Power, J. D. and others", "Spurious but systematic correlations in functional connectivity {MRI} networks arise from subject motion", "NeuroImage", 2012, "59", "2142-2154"),
    "power2014": _article("Power, J. D. and others", "Methods to detect, characterize, and remove motion artifact in resting state {fMRI}", "NeuroImage", 2014, "84", "320-341"),
    "avants2011": _article("Avants, B. B. and others", "A reproducible evaluation of {ANTs} similarity metric performance in brain image registration", "NeuroImage", 2011, "54", "2033-2044"),
    "avants2008": _article("Avants, B. B. and others", "Symmetric diffeomorphic image registration with cross-correlation", "Medical Image Analysis", 2008, "12", "26-41"),
    "greve2009": _article("Greve, D. N. and Fischl, B.", "Accurate and robust brain image alignment using boundary-based registration", "NeuroImage", 2009, "48", "63-72"),
    "friston1996": _article("Friston, K. J. and others", "Movement-related effects in {fMRI} time-series", "Magnetic Resonance in Medicine", 1996, "35", "346-355"),
    "satterthwaite2013": _article("Satterthwaite, T. D. and others", "An improved framework for confound regression and filtering for control of motion artifact in the preprocessing of resting-state functional connectivity data", "NeuroImage", 2013, "64", "240-256"),
    "behzadi2007": _article("Behzadi, Y. and others", "A component based noise correction method ({CompCor}) for {BOLD} and perfusion based {fMRI}", "NeuroImage", 2007, "37", "90-101"),
    "muschelli2014": _article("Muschelli, J. and others", "Reduction of motion-related artifacts in resting state {fMRI} using {aCompCor}", "NeuroImage", 2014, "96", "22-35"),
    "salimikhorshidi2014": _article("Salimi-Khorshidi, G. and others", "Automatic denoising of functional {MRI} data: combining independent component analysis and hierarchical fusion of classifiers", "NeuroImage", 2014, "90", "449-468"),
    "pruim2015": _article("Pruim, R. H. R. and others", "{ICA-AROMA}: a robust {ICA}-based strategy for removing motion artifacts from {fMRI} data", "NeuroImage", 2015, "112", "267-277"),
    "lindquist2019": _article("Lindquist, M. A. and others", "Modular preprocessing pipelines can reintroduce artifacts into {fMRI} data", "Human Brain Mapping", 2019, "40", "2358-2376"),
    "esteban2019": _article("Esteban, O. and others", "{fMRIPrep}: a robust preprocessing pipeline for functional {MRI}", "Nature Methods", 2019, "16", "111-116"),
    "mehta2024": _article("Mehta, K. and others", "{XCP-D}: A robust pipeline for the post-processing of {fMRI} data", "Imaging Neuroscience", 2024, "2", "1-26"),
    "glasser2013": _article("Glasser, M. F. and others", "The minimal preprocessing pipelines for the {Human Connectome Project}", "NeuroImage", 2013, "80", "105-124"),
    "alfaroalmagro2018": _article("Alfaro-Almagro, F. and others", "Image processing and quality control for the first 10,000 brain imaging datasets from {UK Biobank}", "NeuroImage", 2018, "166", "400-424"),
    "efron1987": _article("Efron, B.", "Better bootstrap confidence intervals", "Journal of the American Statistical Association", 1987, "82", "171-185"),
    "diciccio1996": _article("DiCiccio, T. J. and Efron, B.", "Bootstrap confidence intervals", "Statistical Science", 1996, "11", "189-228"),
    "holm1979": _article("Holm, S.", "A simple sequentially rejective multiple test procedure", "Scandinavian Journal of Statistics", 1979, "6", "65-70"),
    "moelder2021": _article('M{\\"o}lder, F. and others', "Sustainable data analysis with {Snakemake}", "F1000Research", 2021, "10", "33"),
    "paszke2019": Entry("inproceedings", "Paszke, A. and others", "{PyTorch}: An imperative style, high-performance deep learning library", "Advances in Neural Information Processing Systems", 2019, "32"),
    "harris2020": _article("Harris, C. R. and others", "Array programming with {NumPy}", "Nature", 2020, "585", "357-362"),
    "virtanen2020": _article("Virtanen, P. and others", "{SciPy} 1.0: fundamental algorithms for scientific computing in {Python}", "Nature Methods", 2020, "17", "261-272"),
    "pedregosa2011": _article("Pedregosa, F. and others", "Scikit-learn: Machine learning in {Python}", "Journal of Machine Learning Research", 2011, "12", "2825-2830"),
}
# fmt: on

#: Package -> its name in a text, and what to cite for it.
PACKAGES = {
    "antspyx": ("ANTsPy", "avants2011"),
    "numpy": ("NumPy", "harris2020"),
    "scikit-learn": ("scikit-learn", "pedregosa2011"),
    "scipy": ("SciPy", "virtanen2020"),
    "torch": ("PyTorch", "paszke2019"),
}


def keys_in(texts: Iterable[str]) -> list[str]:
    """The keys that are cited, in the order of their names."""
    found = {
        key.strip().removeprefix("@")
        for text in texts
        for group in CITED.findall(text)
        for key in f"@{group}".split(";")
    }
    return sorted(found)


def bibtex(keys: Iterable[str]) -> str:
    """A file of these entries."""
    return "\n".join(ENTRIES[key].bibtex(key) for key in keys)


def in_brackets(text: str) -> str:
    """A text with `(Power et al., 2012)` in the place of `[@power2012]`."""

    def shown(match: re.Match[str]) -> str:
        keys = [key.strip().removeprefix("@") for key in f"@{match[1]}".split(";")]
        return f"({'; '.join(_plain(ENTRIES[key].short) for key in keys)})"

    return CITED.sub(shown, text)


def reference(key: str) -> str:
    """A line of the list of references."""
    return _plain(ENTRIES[key].reference)


def _plain(text: str) -> str:
    return text.replace('M{\\"o}lder', "Mölder").replace('M\\"older', "Mölder")
