"""The shards' folder as Croissant 1.0 (JSON-LD), the description of datasets that machines read.

Files with their hashes, and the columns of the index with their types; see
https://docs.mlcommons.org/croissant/docs/croissant-spec.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .reader import INDEX_NAME

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"

#: Terms of the standard's own context that stand for themselves in its name space.
_TERMS = (
    *("citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject"),
    *("fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField"),
    *("path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate"),
    *("separator", "source", "subField", "transform"),
)

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    **{term: f"cr:{term}" for term in _TERMS},
}

_FORMATS = {
    ".md": "text/markdown",
    ".parquet": "application/x-parquet",
    ".safetensors": "application/octet-stream",
    ".tsv": "text/tab-separated-values",
}

_MEANINGS = {
    "recording_id": "name of the recording: the key of its tensor",
    "subject": "label of the person",
    "family": "label of the family, where the study has them",
    "site": "where it was recorded",
    "dataset": "where it comes from",
    "split": "train, val or test; of a subject always one",
    "wave": "the onboarding that found it, 0 for the first",
    "tr": "repetition time of the tensor, s",
    "source_tr": "repetition time of the recording, s",
    "mean_fd": "mean framewise displacement, mm",
    "share_parcels": "share of the parcels that the recording covers",
    "shard": "file that holds its tensor",
    "n_timepoints": "rows of its tensor",
    "n_parcels": "parcels with data",
    "n_clipped": "values too large for the storage type",
    "error_rms": "stored minus exact value, root mean square, in units of the values",
    "error_max": "stored minus exact value, the largest, in units of the values",
    "sha256": "SHA-256 of the tensor's bytes",
}


def croissant(
    *,
    name: str,
    description: str,
    licence: str,
    citation: str,
    files: Mapping[str, tuple[str, int]],
    columns: Mapping[str, str],
) -> dict[str, Any]:
    """The description; `files` maps names to (SHA-256, bytes), `columns` the index's to dtypes."""
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": name,
        "description": description,
        "license": licence,
        "citeAs": citation,
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file,
                "name": file,
                "contentUrl": file,
                "contentSize": f"{size} B",
                "encodingFormat": _FORMATS[file[file.rindex(".") :]],
                "sha256": sha256,
            }
            for file, (sha256, size) in files.items()
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "recordings",
                "name": "recordings",
                "description": "One row per recording: which shard holds it, and what is known.",
                "key": {"@id": "recordings/recording_id"},
                "field": [_field(column, kind) for column, kind in columns.items()],
            }
        ],
    }


def _field(column: str, kind: str) -> dict[str, Any]:
    """One column of the index; `kind` is its dtype."""
    return {
        "@type": "cr:Field",
        "@id": f"recordings/{column}",
        "name": column,
        "description": _MEANINGS.get(column, "of participants.tsv"),
        "dataType": _data_type(kind.lower()),
        "source": {"fileObject": {"@id": INDEX_NAME}, "extract": {"column": column}},
    }


def _data_type(kind: str) -> str:
    for prefix, named in (("int", "sc:Integer"), ("float", "sc:Float"), ("bool", "sc:Boolean")):
        if kind.startswith(prefix):
            return named
    return "sc:Text"
