"""The Nipype interfaces against the commands of the same names, on the same synthetic runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("nipype")

from nipype.interfaces.base import TraitError, isdefined

from brainlm.config import Config
from brainlm.denoise import interfaces as denoising
from brainlm.errors import DataError, InputError
from brainlm.images import read_image, write_image
from brainlm.layout import Study
from brainlm.native_workflow import native_workflow
from brainlm.nodes import StepInterface
from brainlm.parcellate import interfaces as parcels
from brainlm.preproc import interfaces as preproc
from brainlm.series import open_series
from brainlm.threads import ONE_THREAD

from .synthetic_head import TEMPLATE, brainlm, centered_affine, make_study, moving_run, tissues
from .synthetic_registered import fields_of, registered_study

SHAPE, VOLUMES, TR = (31, 37, 31), 60, 3.1
CONFIG = (
    "space: {resolution_mm: 4}\nnormalize: {resolution_mm: 4, transform: affine}\n"
    "atlas: {name: A424approx, space_ok: true}\nica: {components: 4}\n"
    "denoise: {method: motion24, scrub: censor, scrub_fd_mm: 0.9}\n"
)
EVERY = [
    value
    for module in (preproc, denoising, parcels)
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, StepInterface) and value is not StepInterface
]


def made(study: Study, identifier: str) -> dict[str, Path]:
    fields = fields_of(study, identifier) | {"anat": "sub-01", "anat_folder": "sub-01"}
    kinds = ["motion", "hmc_xfm", "boldref", "foreground_mask", "bold_mask", "t1w_to_mni"]
    kinds += ["t1w_brain", "boldref_to_t1w", "boldref_to_mni", "preproc_bold", "mni_mask"]
    kinds += ["confounds", "ica_mixing", "ica_maps", "aroma_metrics", "denoised_bold"]
    kinds += ["timeseries", "coverage", "atlas_image", "atlas_table"]
    return {kind: study.path(kind, **fields) for kind in kinds}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """A run whose place is known, and what the commands from resample on make of it."""
    params = np.random.default_rng(0).normal(0, [0.1] * 3 + [0.001] * 3, (VOLUMES, 6))
    params[20:22, 2] += 2
    study, identifier = registered_study(
        tmp_path_factory.mktemp("known"),
        params,
        affine=centered_affine(SHAPE, 6.0),
        shape=SHAPE,
        config=CONFIG,
    )
    for verb in ("resample", "confounds", "ica", "denoise"):
        brainlm(verb, identifier, "--study", study.root)
    brainlm("prepare-atlas", "--study", study.root)
    brainlm("parcellate", identifier, "--study", study.root)
    bold = study.root.parent / f"bids/sub-01/func/{identifier}_bold.nii.gz"
    return bold, made(study, identifier)


def assert_same(found: object, files: dict[str, Path], *kinds: str) -> None:
    """Each output is, byte by byte, what the command wrote."""
    for kind in kinds:
        assert Path(getattr(found, kind)).read_bytes() == files[kind].read_bytes(), kind


def test_a_normalised_run_becomes_what_the_commands_make_of_it(
    known: tuple[Path, dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bold, files = known
    monkeypatch.chdir(tmp_path)
    tr = 2.0
    way = {"hmc_xfm": files["hmc_xfm"], "boldref_to_mni": files["boldref_to_mni"]}
    node = preproc.ResampleToStandard(bold=bold, tr=tr, resolution_mm=4.0, num_threads=2, **way)
    there = node.run().outputs
    assert_same(there, files, "preproc_bold", "mni_mask")
    assert Path(there.preproc_bold).parent == tmp_path

    run = {"preproc_bold": there.preproc_bold, "mni_mask": there.mni_mask, "tr": tr}
    confounds = preproc.ComputeConfounds(motion=files["motion"], **run).run().outputs
    assert_same(confounds, files, "confounds")
    run["confounds"] = confounds.confounds
    components = denoising.FindComponents(components=4, **run).run().outputs
    assert_same(components, files, "ica_mixing", "ica_maps", "aroma_metrics")
    count = components.about["Components"]  # 4, or fewer where no rotation settled
    assert 1 < count <= 4

    options = {"method": "motion24", "scrub": "censor", "scrub_fd_mm": 0.9}
    clean = denoising.Denoise(**options, **run).run().outputs
    assert_same(clean, files, "denoised_bold")
    assert {20, 22} <= set(clean.about["CensoredVolumes"])
    atlas = {kind: files[kind] for kind in ("atlas_image", "atlas_table")}
    means = parcels.ParcelMeans(bold=clean.denoised_bold, mni_mask=there.mni_mask, **atlas)
    assert_same(means.run().outputs, files, "timeseries", "coverage")

    with pytest.raises(InputError, match="connect them from FindComponents"):
        denoising.Denoise(method="aroma", **run).run()
    noise = {"ica_mixing": components.ica_mixing, "aroma_metrics": components.aroma_metrics}
    table = pd.read_csv(noise["aroma_metrics"], sep="\t").assign(classification="rejected")
    table.to_csv(noise["aroma_metrics"], sep="\t", index=False)
    without = denoising.Denoise(method="aroma", **noise, **run).run().outputs
    assert len(without.about["Confounds"]) == count + 6  # and of both tissues mean and two


def test_slice_timing_in_a_file_is_slice_timing_on_the_way(
    known: tuple[Path, dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bold, files = known
    monkeypatch.chdir(tmp_path)
    times = (np.arange(SHAPE[2]) % 2 * 1.0 + np.arange(SHAPE[2]) / 50).tolist()
    way = {"hmc_xfm": files["hmc_xfm"], "boldref_to_mni": files["boldref_to_mni"]}
    way |= {"tr": 2.0, "resolution_mm": 8.0}
    timed = preproc.CorrectSliceTiming(bold=bold, slice_times=times, tr=2.0).run().outputs
    assert timed.about["SliceTimingCorrected"]
    series = open_series(timed.slice_timed_bold)
    assert series.header.get_zooms() == pytest.approx((6, 6, 6, 2))
    assert series.header.get_value_label("sform_code") == "scanner"
    moved = next(series.volumes()) - next(open_series(bold).volumes())
    assert np.abs(moved).max() > 10
    in_file = preproc.ResampleToStandard(bold=timed.slice_timed_bold, **way).run().outputs
    two_steps = Path(in_file.preproc_bold).read_bytes()
    at_once = preproc.ResampleToStandard(bold=bold, slice_times=times, **way).run().outputs
    assert Path(at_once.preproc_bold).read_bytes() == two_steps


@pytest.mark.slow
def test_a_field_in_hz_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant field is taken for the scanner's frequency, and its gradient for what it is."""
    monkeypatch.chdir(tmp_path)
    run, affine = moving_run(np.zeros((1, 6)), affine=centered_affine(SHAPE, 6.0), shape=SHAPE)
    head = run[..., 0]
    write_image("boldref.nii.gz", head, affine)
    write_image("mask.nii.gz", (head > 300).astype(np.uint8), affine)
    ramp = np.broadcast_to(40 + 0.5 * np.arange(SHAPE[1])[:, None], SHAPE)
    write_image("field.nii.gz", ramp.astype(np.float32), affine)
    node = preproc.EstimateFieldmap(
        boldref="boldref.nii.gz",
        foreground_mask="mask.nii.gz",
        kind="fieldmap",
        files=["field.nii.gz", "boldref.nii.gz"],
        pe_direction="j-",
        total_readout_time=0.05,
        registration_mm=8.0,
    )
    found = node.run().outputs
    brain = head > 300
    field = read_image(found.fieldmap).data
    slope = np.polyfit(np.nonzero(brain)[1], field[brain], 1)[0]
    assert slope == pytest.approx(0.5, rel=0.15)
    assert np.median(field[brain]) == pytest.approx(0, abs=0.01)
    assert (found.pe_direction, found.total_readout_time) == ("j-", 0.05)
    # The shift along j- is -0.05 x 0.5 voxels per voxel: tissue was squeezed, and is spread again.
    assert found.quality["SmallestJacobian"] < 0.98
    node.inputs.files = ["field.nii.gz"]
    with pytest.raises(InputError, match="has 2 files, not 1"):
        node.run()


def test_a_wrong_input_is_refused_when_it_is_set() -> None:
    inputs = preproc.ResampleToStandard().inputs
    for name, value in {"tr": -1.0, "order": 9, "template": "MNI", "bold": "none.nii.gz"}.items():
        with pytest.raises(TraitError):
            setattr(inputs, name, value)
    with pytest.raises(TraitError):
        denoising.Denoise(scrub_pad=(1, "a"))
    with pytest.raises(ValueError, match="requires a value for input 'bold'"):
        preproc.EstimateMotion().run()
    with pytest.raises(ValueError, match="because 't1w_brain' is set"):
        preproc.NormalizeBold(t1w_brain=__file__, boldref=__file__, foreground_mask=__file__).run()


def test_faults_arrive_as_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_image("short.nii.gz", np.ones((5, 5, 5, 3), dtype=np.int16), np.eye(4), tr=2.0)
    with pytest.raises(DataError, match="3 volumes; motion needs at least 5") as caught:
        preproc.EstimateMotion(bold="short.nii.gz").run()
    assert caught.value.file is not None and caught.value.file.endswith("short.nii.gz")
    assert caught.value.fix is not None
    monkeypatch.setattr(preproc.EstimateMotion, "_step", "brainlm.preproc.steps:nothing")
    with pytest.raises(RuntimeError, match="has no attribute 'nothing'"):
        preproc.EstimateMotion(bold="short.nii.gz").run()


@pytest.mark.parametrize("interface", EVERY)
def test_defaults_are_those_of_the_config(interface: type[StepInterface]) -> None:
    node = interface()
    for name in node.inputs.copyable_trait_names():
        trait, value = node.inputs.trait(name), getattr(node.inputs, name)
        if trait.section is not None:
            assert value == getattr(getattr(Config(), trait.section), trait.key), name
    module, _, function = interface._step.partition(":")
    step = getattr(sys.modules.get(module) or __import__(module, fromlist=["x"]), function)
    code = step.__code__
    wanted = set(code.co_varnames[2 : code.co_argcount + code.co_kwonlyargcount])
    offered = {
        n for n in node.inputs.copyable_trait_names() if node.inputs.trait(n).section is None
    }
    assert offered == wanted


def test_no_option_of_a_section_is_forgotten() -> None:
    offered: dict[str, set[str]] = {}
    for interface in EVERY:
        inputs = interface().inputs
        for name in inputs.copyable_trait_names():
            if (section := inputs.trait(name).section) is not None:
                offered.setdefault(section, set()).add(inputs.trait(name).key)
    for section, left_out in {
        "motion": set(),
        "normalize": set(),
        "confounds": set(),
        "ica": set(),
        "denoise": set(),
        "parcellate": set(),
        "space": set(),
        "distortion": {"method"},  # what is connected decides
        "resample": {"output"},  # files, always
    }.items():
        model = type(getattr(Config(), section))
        assert offered[section] == set(model.model_fields) - left_out, section


def test_nipype_asks_no_server_and_no_command_needs_nipype() -> None:
    code = (
        "import os, sys, pkgutil, importlib, brainlm.cli\n"
        "for each in pkgutil.iter_modules(brainlm.cli.__path__):\n"
        "    importlib.import_module(f'brainlm.cli.{each.name}')\n"
        "import brainlm.preproc.steps, brainlm.preproc.fieldmap_step\n"
        "import brainlm.denoise.steps, brainlm.parcellate.steps\n"
        "assert not {'nipype', 'etelemetry'} & set(sys.modules)\n"
        "assert 'NO_ET' not in os.environ\n"
        "import socket\n"
        "def refuse(*_, **__): raise SystemExit('asked the network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import brainlm.preproc.interfaces as interfaces\n"
        "interfaces.EstimateMotion()\n"
        "assert os.environ['NO_ET'] == '1'\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "NO_ET"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_a_step_runs_in_the_environment_that_ants_needs(tmp_path: Path) -> None:
    from brainlm.pinned import run_pinned

    (tmp_path / "told.py").write_text(
        "import os\ndef step(folder, config):\n    return {'env': dict(os.environ)}\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        said = run_pinned("told:step", {}, {}, tmp_path)["env"]
    finally:
        sys.path.remove(str(tmp_path))
    assert {key: said[key] for key in ONE_THREAD} == ONE_THREAD


@pytest.mark.nightly
@pytest.mark.slow
def test_warp_of_a_run_without_t1w_is_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, affine = moving_run(np.zeros((5, 6)), affine=centered_affine(SHAPE, 6.0), shape=SHAPE)
    config = "space: {resolution_mm: 4}\nnormalize: {resolution_mm: 6}\n"
    root, identifier = make_study(tmp_path, run, affine, config=config)
    for verb in ("motion", "normalize-bold", "warp-bold"):
        brainlm(verb, identifier, "--study", root)
    study = Study(root)
    files = made(study, identifier)
    key = "boldref_to_mni_warp"
    files[key] = study.path(key, **fields_of(study, identifier))
    monkeypatch.chdir(tmp_path)
    reference = {kind: files[kind] for kind in ("boldref", "foreground_mask")}
    reference["registration_mm"] = 6.0
    place = preproc.NormalizeBold(**reference).run().outputs
    assert_same(place, files, "boldref_to_mni", "bold_mask")
    warp = preproc.WarpBold(boldref_to_mni=place.boldref_to_mni, **reference).run().outputs
    assert_same(warp, files, key)


@pytest.mark.slow
def test_the_example_of_the_docs_gives_what_the_commands_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = np.random.default_rng(1).normal(0, [0.2] * 3 + [0.002] * 3, (VOLUMES, 6))
    run, affine = moving_run(params, affine=centered_affine(SHAPE, 6.0), shape=SHAPE)
    head = tissues(3.0)
    config = "normalize: {transform: affine}\natlas: {name: A424approx, space_ok: true}\n"
    root, identifier = make_study(
        tmp_path, run, affine, t1w=(1000 * head.t1w, head.affine), tr=TR, config=config
    )
    for verb, name in {
        "motion": identifier,
        "normalize-anat": "sub-01",
        "coregister-bold": identifier,
        "normalize-bold": identifier,
        "resample": identifier,
        "confounds": identifier,
        "ica": identifier,
        "denoise": identifier,
    }.items():
        brainlm(verb, name, "--study", root)
    brainlm("prepare-atlas", "--study", root)
    brainlm("parcellate", identifier, "--study", root)
    files = made(Study(root), identifier)

    bids = tmp_path / "bids/sub-01"
    here = tmp_path / "here"
    here.mkdir()
    for name, path in {
        "sub-01_task-rest_bold.nii.gz": bids / f"func/{identifier}_bold.nii.gz",
        "sub-01_T1w.nii.gz": bids / "anat/sub-01_T1w.nii.gz",
        "atlas_dseg.nii.gz": files["atlas_image"],
        "atlas_dseg.tsv": files["atlas_table"],
    }.items():
        (here / name).symlink_to(path)
    (here / "sub-01_task-rest_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    monkeypatch.chdir(here)
    text = (Path(__file__).parents[2] / "docs/nipype.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    names: dict = {}
    exec(compile(example, "docs/nipype.md", "exec"), names)
    by_name = {node.name: node.result.outputs for node in names["done"].nodes}
    made_by = {
        "motion": ("motion", "hmc_xfm", "boldref", "foreground_mask"),
        "anat": ("t1w_to_mni", "t1w_brain"),
        "coregister": ("boldref_to_t1w",),
        "place": ("boldref_to_mni", "bold_mask"),
        "resample": ("preproc_bold", "mni_mask"),
        "confounds": ("confounds",),
        "denoise": ("denoised_bold",),
        "parcels": ("timeseries", "coverage"),
    }
    for node, kinds in made_by.items():
        assert_same(by_name[node], files, *kinds)
    assert not isdefined(by_name["anat"].t1w_to_mni_warp)
    assert names["series"].shape == (VOLUMES, 424)


def test_the_workflow_knows_no_other_space_than_its_nodes() -> None:
    """Each node that has a template starts from the same one."""
    workflow = native_workflow()
    nodes = [workflow.get_node(name) for name in workflow.list_node_names()]
    spaces = {node.inputs.template for node in nodes if "template" in node.inputs.get()}
    assert spaces == {TEMPLATE}
