"""`brainlm embed-files`: vectors of parcel series that lie anywhere, with any model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._console import progress, say, warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..evaluate.embeddings import Vectors
    from ..model.pretrained import BrainLM


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("embed-files")(embed_files)


def embed_files(
    model: Annotated[
        str, typer.Argument(help="a model's folder, or a repository on the Hugging Face Hub")
    ],
    series: Annotated[
        list[Path],
        typer.Argument(help="parcel series: .parquet, .tsv, .csv, .txt, .dat, .npy or .mat"),
    ],
    output: Annotated[Path, typer.Option("--output", help="the .parquet to write")],
    subfolder: Annotated[str | None, typer.Option(help="of the model's folder")] = None,
    tr: Annotated[
        float | None, typer.Option(help="repetition time of the series, s: compared if told")
    ] = None,
    scaler: Annotated[
        Path | None,
        typer.Option(help="a normalization.safetensors in the place of the model's own"),
    ] = None,
    scaled: Annotated[
        bool, typer.Option("--scaled", help="the series are scaled as the model's were")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Write a model's vectors of ready parcel series, one row for each file.

    Columns: file, n_windows, cls, and mean (over CLS and all tokens); as `brainlm embed` has them.
    `file` is the file's name, or its path as given where two have the same name.
    A series that does not fit the model (parcels, length, TR, unit) ends the command before
    anything is written.
    """
    from ..errors import InputError
    from ..evaluate.embeddings import write_embeddings
    from ..files import atomic_path
    from ..model.checkpoint import weights_sha256
    from ..model.pretrained import BrainLM
    from ..provenance import sha256_file, software_versions, write_sidecar
    from ..shards.reader import NORMALIZATION_NAME
    from ..stages import module_digest

    if output.suffix != ".parquet":
        raise InputError("--output must end in .parquet", file=output)
    opened = BrainLM.from_pretrained(model, subfolder=subfolder, device=device)
    if scaler:
        opened = opened.with_scaler(scaler)
    vectors = _vectors(opened, series, tr, scaled)
    names = _names(series)
    sources = {f"series::{name}": sha256_file(one) for name, one in zip(names, series, strict=True)}
    if scaler:
        file = scaler / NORMALIZATION_NAME if scaler.is_dir() else scaler
        sources[f"scaler::{file.name}"] = sha256_file(file)
    with atomic_path(output) as path:
        write_embeddings(path, {"file": names}, vectors)
        write_sidecar(
            output,
            stage="embed-files",
            code_digest=module_digest(__name__),
            entities={},
            sources=sources,
            parameters={"model": model, "subfolder": subfolder, "tr": tr, "scaled": scaled},
            software=software_versions(("numpy", "pyarrow", "safetensors", "torch")),
            fields={"ModelWeightsSHA256": weights_sha256(opened.network)},
        )
    say(f"{len(series)} series: {output}")


def _names(series: Sequence[Path]) -> list[str]:
    """The files' names; their paths where names alone do not tell them apart."""
    from ..errors import InputError

    paths = [one.as_posix() for one in series]
    if twice := sorted({path for path in paths if paths.count(path) > 1}):
        raise InputError("This series is given twice", file=twice[0])
    names = [one.name for one in series]
    return names if len(set(names)) == len(names) else paths


def _vectors(
    model: BrainLM, series: Sequence[Path], tr: float | None, scaled: bool
) -> list[Vectors]:
    """Read, check, scale and embed each file; an error names it."""
    from ..errors import DataError, InputError
    from ..evaluate.embeddings import embed_series
    from ..parcellate.ready import read_parcels

    found = []
    for path in progress(series, "embedding"):
        ready = read_parcels(path, [str(name) for name in model.parcels["name"]])
        for note in ready.notes:
            warn(f"{path.name}: {note}")
        try:
            taken = model.take(ready.series, tr=tr, scaled=scaled)
        except (DataError, InputError) as error:
            raise type(error)(error.what, file=path, fix=error.fix) from None
        found.append(embed_series(model.autoencoder, taken.values.T))
    return found
