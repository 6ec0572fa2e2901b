"""`brainlm template`: get, list and find the standard spaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ._console import say
from ._single_thread import pin_libraries

if TYPE_CHECKING:
    from ..templates import Template

NameArg = Annotated[str, typer.Argument(help="a name from `brainlm template list`")]

#: Grid on which two templates are registered, mm.
REGISTRATION_MM = 2.0

template_app = typer.Typer(
    help="Get, list and find the templates that define standard spaces.\n\n"
    "MNI152NLin2009aSym is always there. MNI152NLin6Asym, in which A424 is drawn, is fetched "
    "once from TemplateFlow's archive, checked against its checksums and kept in a cache "
    "(BRAINLM_CACHE, else ~/.cache/brainlm); a TemplateFlow home (TEMPLATEFLOW_HOME, else "
    "~/.cache/templateflow) that has it is used first.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    app.add_typer(template_app, name="template")


@template_app.command("list")
def list_templates() -> None:
    """List the known templates, and whether each is on this machine."""
    from ..templates import TEMPLATES, is_here

    width = max(map(len, TEMPLATES))
    say(f"{'name':<{width}}  here  description")
    for template in TEMPLATES.values():
        here = "yes" if is_here(template.name) else "no"
        say(f"{template.name:<{width}}  {here:<4}  {template.description}")


@template_app.command("where")
def where(name: NameArg) -> None:
    """Print the file of each map of a template; an error where it is not on this machine."""
    from ..templates import find_template, template_file

    for contrast in find_template(name).files:
        say(f"{contrast:<5}  {template_file(name, contrast)}")


@template_app.command("get")
def get(
    name: NameArg = "MNI152NLin6Asym",
    source: Annotated[
        str | None,
        typer.Option("--from", help="a folder or URL that holds the files, for want of a network"),
    ] = None,
) -> None:
    """Fetch a template, unless it is there, and make its tissue maps (some minutes, once).

    TemplateFlow has no tissue maps in MNI152NLin6Asym: grey and white matter are those of
    MNI152NLin2009aSym, brought over by a registration of the two templates (affine, then SyN).
    """
    pin_libraries()
    from ..templates import TISSUES, fetch_template, file_here, find_template

    template = find_template(name)
    fetch_template(template, source)
    if any(file_here(template, tissue) is None for tissue in TISSUES):
        say(f"Carrying grey and white matter over to {name}: some minutes, this once")
        _carry_tissues(template)
    say(f"{name} (cite {template.citation})")
    where(name)


def _carry_tissues(template: Template) -> None:
    """Make the tissue maps of a template and keep them, with sidecars, in our cache."""
    from ..files import atomic_path
    from ..images import load_template, write_image
    from ..preproc.carry_tissues import carry_tissues
    from ..provenance import sha256_file, software_versions, write_sidecar
    from ..stages import module_digest
    from ..templates import BUNDLED, TISSUES, carried_from, template_folders
    from ..tissues import load_tissues

    whole = load_template(template.name, "brain", None)
    t1w = load_template(template.name, "T1w", REGISTRATION_MM)
    brain = load_template(template.name, "brain", REGISTRATION_MM)
    found = carry_tissues(
        load_tissues(BUNDLED, 1.0), t1w, brain.data > 0.5, (whole.affine, whole.data.shape)
    )
    fields = {
        "Description": f"Tissue share of {BUNDLED}, brought to {template.name} by registration",
        "CorrelationAffine": round(found.correlation_affine, 4),
        "CorrelationNonlinear": round(found.correlation, 4),
    }
    folder = template_folders(template)[1]
    for tissue, data in zip(TISSUES, (found.gm, found.wm), strict=True):
        path = folder / template.files[tissue]
        with atomic_path(path) as temporary:
            write_image(temporary, data, whole.affine, in_mni=True, atomic=False)
            write_sidecar(
                path,
                stage="template get",
                code_digest=module_digest("brainlm.preproc.carry_tissues"),
                entities={"tpl": template.name},
                sources=carried_from(template),
                parameters={"resolution_mm": REGISTRATION_MM},
                software=software_versions(("antspyx", "nibabel", "nilearn", "numpy", "scipy")),
                fields={**fields, "SHA256": sha256_file(temporary)},
            )
