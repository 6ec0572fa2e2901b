"""`brainlm demo`: the whole way on a phantom dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._console import say


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(demo)


def demo(
    directory: Annotated[Path, typer.Option(help="where to put everything")] = Path("demo"),
    cores: Annotated[int, typer.Option(help="CPU cores to use", min=1)] = 2,
    small: Annotated[
        bool, typer.Option("--small", help="a minute instead of minutes: coarse and short")
    ] = False,
) -> None:
    """Make a phantom BIDS dataset and run the whole workflow on it, up to the HTML report.

    Eight synthetic subjects with known truth go through every stage: onboarding, motion,
    normalisation, denoising, parcellation, shards, pretraining, fine-tuning, evaluation by every
    task of the paper with every method beside the model.
    Killed at any moment, the same command goes on where it was and ends with the same bytes.
    Called again when done, it does nothing.
    """
    from ..files import exclusive

    directory.mkdir(parents=True, exist_ok=True)
    with exclusive(directory / ".lock", what="Another `brainlm demo` is running here"):
        _run(directory.resolve(), cores, small)


def _run(directory: Path, cores: int, small: bool) -> None:
    from ..atlas import available_atlas
    from ..atlas.fetch import available_space
    from ..atlas.registry import find_atlas
    from ..templates import BUNDLED

    bids, study = directory / "bids", directory / "study"
    atlas = available_atlas()
    size = _SMALL if small else _FULL
    say(f"[1/3] Phantom BIDS dataset in {bids}")
    _call("phantom", bids, *size["phantom"], "--atlas", atlas, "--threads", cores)
    say(f"[2/3] Onboarding into {study}")
    space, drawn_in = available_space(find_atlas(atlas), BUNDLED), find_atlas(atlas).space
    settings = demo_settings(atlas, space, small=small)
    if drawn_in not in (None, space):
        settings.append("atlas.space_ok=true")
        say(
            f"{atlas} is drawn in {drawn_in}, which is not on this machine: it is used in {space}, "
            f"some mm off at places (`brainlm template get {drawn_in}` before a demo mends that)"
        )
    options = [part for setting in settings for part in ("--set", setting)]
    _call("onboard", bids, "--study", study, "--threads", cores, *options)
    say("[3/3] The workflow, by Snakemake")
    _snakemake(study, cores)
    say(f"\nDone. The report: {study / 'reports' / 'report.html'}")
    say(f"The paper's tables and figures: {study / 'evaluation' / 'tiny' / 'index.html'}")


def demo_settings(atlas: str, space: str, *, small: bool = False) -> list[str]:
    """The options of the demo's study, as `brainlm onboard --set` takes them."""
    from importlib.util import find_spec

    size = _SMALL if small else _FULL
    methods = _FORECASTS + (_ODES if find_spec("torchdiffeq") else "")
    methods = _FEW_FORECASTS if small else methods
    return [
        f"atlas.name={atlas}",
        f"space.template={space}",
        f"forecasts.methods=[{methods}]",
        *_COMMON,
        *map(str, size["settings"]),
    ]


_COMMON = (
    "name=phantom demo",
    "normalize.transform=affine",  # on heads that the phantom deforms so little, for speed
    "denoise.method=motion24",  # for speed: ICA takes longer than all that it follows
    "split.train=0.5",
    "split.val=0.2",
    "split.salt=demo-8",  # the draw of so few subjects is lumpy; this one gives 4, 1 and 3
    "pretrain.run=tiny",
    "pretrain.device=cpu",
    "quality.max_mean_fd_mm=1.0",
    "finetune.targets=[{name: age, kind: regression}]",
    "finetune.forecast=true",
    "forecasts.search=false",  # one setting of each network: a handful of recordings to learn from
    "networks.search=false",
    "parcel_networks.search=false",
    "perturbation.shams=2",  # each takes as long as the experiment
)
#: Who forecasts beside the model; the last two where their solver is installed.
_FORECASTS = "brainlm, untrained, zero-shot, mean, persistence, ar, var, lstm"
_ODES = ", neural-ode, latent-ode"
_FEW_FORECASTS = "brainlm, persistence, ar, lstm"
_FULL = {
    "phantom": ("--subjects", 8, "--volumes", 220),
    "settings": (
        "space.resolution_mm=4",
        "pretrain.batch_size=1",
        "pretrain.learning_rate=0.002",
        "pretrain.epochs=20",
        "pretrain.windows_per_recording=10",
        "finetune.epochs=10",
        "forecasts.epochs=40",
        "networks.epochs=40",
        "parcel_networks.epochs=20",
    ),
}
#: Every stage in about a minute, with 5 subjects (3, 1 and 1) and a window of 40 volumes.
_SMALL = {
    "phantom": (
        *("--subjects", 5, "--two-runs", 0, "--two-sessions", 0),
        *("--volumes", 60),
        *("--voxel-mm", 5, "--t1w-mm", 3),
    ),
    "settings": (
        "eligibility.min_volumes=50",
        "space.resolution_mm=5",
        "model.overrides={timepoints: 40, hidden: 16, heads: 2, mlp: 32, decoder_hidden: 16}",
        "pretrain.epochs=3",
        "pretrain.batch_size=2",
        "pretrain.checkpoint_every=1",
        "finetune.epochs=2",
        "forecasts.epochs=2",
        "networks.methods=[lstm]",
        "networks.epochs=2",
        "parcel_networks.epochs=2",
        "perturbation.shams=1",
        "attention.permutations=100",
        "latent.permutations=100",
        "evaluate.bootstrap=100",
        "keep_intermediates=true",
    ),
}


def _call(*arguments: object) -> None:
    """Run another verb in its own process, as a user would."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "brainlm", *(str(argument) for argument in arguments)]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise typer.Exit(code)


def _snakemake(study: Path, cores: int) -> None:
    """Run the workflow; a lock left by a killed run is lifted first (ours is exclusive)."""
    import subprocess
    import sys

    from ..errors import ResourceError
    from ..resources import share_dir

    base = [sys.executable, "-m", "snakemake", "--directory", str(study)]
    base += ["--snakefile", str(share_dir() / "Snakefile")]
    base += ["--profile", str(share_dir() / "config" / "profiles" / "local")]
    base += ["--cores", str(cores)]
    if any((study / ".snakemake" / "locks").glob("*")):
        subprocess.run([*base, "--unlock", "--quiet"], check=False, capture_output=True)
    if subprocess.run(base, check=False).returncode:
        raise ResourceError(
            "The workflow did not finish; the lines above say which job failed and why",
            file=study / "logs",
            fix="mend the cause and run the same command again: it goes on where it stopped",
        )
