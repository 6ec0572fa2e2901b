"""`brainlm cluster`: fit the Slurm profile to the cluster, and ask it whether jobs could run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._console import say

if TYPE_CHECKING:
    from ..cluster.site import Site

StudyFolder = Annotated[Path, typer.Option("--study", help="the study folder")]

cluster_app = typer.Typer(
    help="Fit the Slurm profile to this cluster, and ask Slurm whether the jobs could run.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    app.add_typer(cluster_app, name="cluster")


@cluster_app.command("profile")
def profile(
    study: StudyFolder = Path(),
    partition: Annotated[
        str | None, typer.Option(help="partition of the jobs without GPUs; left out: the default")
    ] = None,
    gpu_partition: Annotated[
        str | None, typer.Option(help="partition of the jobs with GPUs; left out: the one for GPUs")
    ] = None,
    account: Annotated[
        str | None, typer.Option(help="account to charge; left out: your default account")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="write over a profile that you have edited")
    ] = False,
) -> None:
    """Fill in the study's Slurm profile with partitions, limits and account of this cluster.

    In a clone, that of `snakemake --profile slurm --directory STUDY`.

    A file that you have edited stays, and the new one goes beside it (config.yaml.new).
    """
    from ..cluster.profile import choose, write_profile

    site = _site()
    choice = choose(site, partition, gpu_partition, account)
    describe(site)
    say(f"Chosen: {choice}")
    folder = _profile(study.resolve()).parent
    clone = (study / "workflow").is_dir()
    written = write_profile(folder, site, choice, force=force, clone=clone)
    for path in written:
        beside = path.suffix == ".new"
        say(f"{path}: " + ("compare with your own, or --force" if beside else "written"))
    if not written:
        say("The profile is as it should be.")


@cluster_app.command("check")
def check(study: StudyFolder = Path()) -> None:
    """Ask Slurm whether it would take jobs of the study's profile; nothing is submitted.

    `snakemake --profile slurm` does the same for each of its jobs before it submits the first.
    """
    from ..cluster.admission import problems, raise_all
    from ..cluster.profile import read_profile

    site = _site()
    following, samples = read_profile(_profile(study).parent, site)
    describe(site)
    raise_all(problems(site, following, samples))
    say("Slurm would take these jobs, and tell of their end.")


def describe(site: Site) -> None:
    """Print what a cluster offers."""
    say(f"Cluster {site.name}")
    for one in site.partitions:
        limit = "no time limit" if one.max_minutes is None else f"at most {one.max_minutes} minutes"
        gpus = f", {one.gpus} GPUs {' '.join(one.models)}".rstrip() if one.gpus else ""
        notes = ", the default" * one.default + ", not for you" * (not one.usable)
        say(f"  partition {one.name}: {one.nodes} nodes{gpus}, {limit}{notes}")
    say(f"  accounts: {', '.join(site.accounts) or 'none'}")
    say(f"  accounting: {site.no_accounting or 'sacct answers'}")


def _site() -> Site:
    from ..cluster.site import answer, find_site
    from ..errors import InputError

    site = find_site()
    if site is None:
        said = answer("sinfo", "--noheader").error
        raise InputError(
            f"There is no Slurm cluster that answers here: {said or 'sbatch is not installed'}",
            fix="run this on a login node, where `sinfo` lists the partitions",
        )
    return site


def _profile(study: Path) -> Path:
    from ..errors import InputError

    path = study / "config" / "profiles" / "slurm" / "config.yaml"
    if not path.is_file():
        raise InputError(
            "There is no Slurm profile", file=path, fix="name a study made by `brainlm onboard`"
        )
    return path
