"""The phantom's parts against what they promise."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform

from brainlm.atlas import load_table
from brainlm.atlas.build import approximate_labels
from brainlm.errors import InputError
from brainlm.geometry import grid_center, params_from_pose
from brainlm.phantom import anatomy, cycles, motion, network, physiology, scanner, scene
from brainlm.phantom.parameters import (
    CORRUPTIONS,
    SPACE,
    Parameters,
    Run,
    Session,
    plan_runs,
    site_name,
    stream,
)
from brainlm.phantom.traits import Traits, draw_traits

MEAN = Traits(50.0, "F", 20.0)
QUIET = Parameters(volumes=40, voxel_mm=6, noise=0, artefacts=False, motion_mm=0)


@cache
def head() -> anatomy.Head:
    return anatomy.draw_head(2.5, stream(1, "test head"))


@cache
def view(site: int) -> scene.Scene:
    labels = approximate_labels(load_table(), SPACE, 2.0)
    return scene.make_scene(head(), labels, 424, site, 6.0, skull=False)


def run_of(site: int, parameters: Parameters) -> Run:
    return Run(Session("01", None, site), None, parameters.volumes, parameters.tr)


def latent(seconds: float, percent: float = 2.0, traits: Traits = MEAN) -> network.Latent:
    return network.simulate(load_table(), traits, seconds, percent, stream(3, "latent"))


# --- plan and traits --------------------------------------------------------------------------


def test_eight_subjects_make_ten_recordings() -> None:
    runs = [run.id for run in plan_runs(Parameters())]
    assert len(runs) == len(set(runs)) == 10
    assert {"sub-02_task-rest_run-1", "sub-02_task-rest_run-2"} <= set(runs)
    assert {"sub-03_ses-1_task-rest", "sub-03_ses-2_task-rest"} <= set(runs)
    assert {run.session.site for run in plan_runs(Parameters())} == {0, 1}


def test_corruption_adds_subjects_and_leaves_the_healthy_ones() -> None:
    clean, broken = Parameters(), Parameters(corrupt=tuple(CORRUPTIONS))
    assert plan_runs(broken)[:10] == plan_runs(clean)
    added = plan_runs(broken)[10:]
    assert len({run.session.subject for run in added}) == len(CORRUPTIONS)
    assert [run.volumes for run in added].count(20) == 1
    assert [(run.volumes, run.tr) for run in added if run.run == "2"] == [(232, 2.5)]
    assert draw_traits(broken).iloc[:8].equals(draw_traits(clean))


def test_traits_cover_their_ranges() -> None:
    table = draw_traits(Parameters(subjects=8, seed=4))
    assert sorted((table["age"] - 20) // 7.5) == list(range(8))
    assert sorted(table["score"] // 5) == list(range(8))
    assert (table["sex"] == "M").sum() == 4


@pytest.mark.parametrize(
    "fault", [{"subjects": 0}, {"tr": float("nan")}, {"motion_mm": -1}, {"corrupt": ("no-such",)}]
)
def test_impossible_parameters_are_refused(fault: dict) -> None:
    with pytest.raises(InputError):
        Parameters(**fault)


def test_site_names_go_on_after_z() -> None:
    assert [site_name(k) for k in (0, 25, 26, 27)] == ["A", "Z", "AA", "AB"]


# --- network ----------------------------------------------------------------------------------


def test_signals_have_the_amplitude_asked_for() -> None:
    series = latent(2000, percent=2.0).series
    assert series.std(axis=0).mean() == pytest.approx(2.0, rel=0.05)
    assert abs(series.mean()) < 0.05


def test_amplitudes_follow_the_traits_as_documented() -> None:
    """Twice the same draw with other traits: the SD changes by the planted factor."""
    groups = network.group_of(load_table())
    default, limbic = (groups == network.GROUPS.index(name) for name in ("Default", "Limbic"))
    young, old = (latent(1500, traits=Traits(age, "F", 20)).series for age in (20, 80))
    z = Traits(80, "F", 20).standard[0] - Traits(20, "F", 20).standard[0]
    change = np.log(old[:, default].std(axis=0).mean() / young[:, default].std(axis=0).mean())
    assert change == pytest.approx(-0.30 * z, abs=0.1)
    well, ill = (latent(1500, traits=Traits(50, "F", score)).series for score in (0, 40))
    assert ill[:, limbic].std() / well[:, limbic].std() > 2


def test_sex_couples_visual_and_somatomotor() -> None:
    groups = network.group_of(load_table())
    found = {}
    for sex in "FM":
        series = latent(2000, traits=Traits(50, sex, 20)).series
        visual, motor = (series[:, groups == g].mean(axis=1) for g in (0, 1))
        found[sex] = np.corrcoef(visual, motor)[0, 1]
    assert found["M"] > found["F"] + 0.1


def test_parcels_of_a_network_go_together_and_the_chain_keeps_its_weights() -> None:
    groups = network.group_of(load_table())
    drawn = latent(4000)
    r = np.corrcoef(drawn.series[::10].T)
    same = groups[:, None] == groups[None]
    off = ~np.eye(len(r), dtype=bool)
    assert r[same & off].mean() > r[~same].mean() + 0.3
    share = np.bincount(drawn.states, minlength=4) / len(drawn.states)
    assert share == pytest.approx(network.state_weights(MEAN), abs=0.08)


def test_the_response_peaks_at_five_seconds() -> None:
    response = network.haemodynamic_response(0.1)
    assert response.argmax() * 0.1 == pytest.approx(5, abs=0.3)
    assert response.argmin() * 0.1 == pytest.approx(15, abs=1.5)


@settings(deadline=None, max_examples=20)
@given(st.floats(20, 80), st.sampled_from("FM"), st.floats(0, 40))
def test_every_trait_gives_a_valid_model(age: float, sex: str, score: float) -> None:
    traits = Traits(age, sex, score)
    assert np.linalg.eigvalsh(network.state_covariances(traits)).min() > 0.05
    assert network.state_weights(traits).sum() == pytest.approx(1)
    assert (network.network_amplitudes(traits) > 0.3).all()


# --- anatomy ----------------------------------------------------------------------------------


def test_the_inverse_finds_back_every_point() -> None:
    points = stream(1, "points").uniform([-70, -105, -60], [70, 70, 80], (500, 3))
    back = head().to_template(head().to_scanner(points))
    assert np.abs(back - points).max() < 0.01


def test_the_deformation_is_as_large_as_asked_and_does_not_fold() -> None:
    assert anatomy.jacobian(head().displacement, anatomy.FIELD_MM).min() > 0.1
    brain = anatomy.load_template(SPACE, "GM", anatomy.FIELD_MM).data > 0.5
    length = np.sqrt((head().displacement ** 2).sum(axis=0)[brain].mean())
    assert length == pytest.approx(2.5, rel=0.15)
    with pytest.raises(InputError, match="folds"):
        anatomy.draw_head(40, stream(1, "test head"))


def test_the_jacobian_of_a_known_field() -> None:
    x = np.indices((6, 6, 6), dtype=float)
    stretch = np.stack([0.1 * x[0], -0.2 * x[1], 0 * x[2]]) * 4
    assert anatomy.jacobian(stretch, 4.0) == pytest.approx(np.full((6, 6, 6), 1.1 * 0.8))


def test_the_truth_file_holds_where_template_points_went() -> None:
    field = head().total_displacement()
    voxel = np.array([20, 30, 25])
    point = head().grid[:3, :3] @ voxel + head().grid[:3, 3]
    moved = head().to_scanner(point[None])[0]
    assert field[tuple(voxel)] == pytest.approx(moved - point, abs=1e-3)


@pytest.mark.parametrize("site", [0, 1])
def test_left_parcels_lie_on_the_left_in_the_world(site: int) -> None:
    table = load_table()
    here = view(site)
    grid = anatomy.grid_points(here.shape)[here.voxels]
    world = grid @ here.affine[:3, :3].T + here.affine[:3, 3]
    weight = np.asarray(here.mixing.sum(axis=0)).ravel()
    centers = (here.mixing.T @ world) / weight[:, None]
    template = head().to_template(centers)
    assert (weight > 0).all()
    assert np.linalg.det(here.affine[:3, :3]) * (1 if site == 0 else -1) > 0
    error = np.linalg.norm(template - table[["x", "y", "z"]].to_numpy(), axis=1)
    assert np.median(error) < 5
    lateral = table["x"].abs() > 15
    assert (np.sign(template[lateral, 0]) == np.sign(table["x"][lateral])).all()


def test_signal_is_lost_near_the_sinuses() -> None:
    kept = scene._kept_signal(np.array([[0.0, 40, -22], [0, -60, 40]]))
    assert kept[0] == pytest.approx(0.25, abs=0.02)
    assert kept[1] == pytest.approx(1, abs=0.001)


# --- motion -----------------------------------------------------------------------------------


def test_framewise_displacement_of_a_known_movement() -> None:
    params = np.zeros((3, 6))
    params[1] = [0.1, -0.2, 0.3, 0.002, 0, -0.001]
    fd = motion.framewise_displacement(params)
    assert np.isnan(fd[0])
    assert fd[1:] == pytest.approx([0.6 + 0.15] * 2)


def test_motion_starts_at_rest_and_scales() -> None:
    breathing = np.sin(np.arange(200.0))
    small, large = (
        motion.draw_motion(200, 2.0, mm, breathing, stream(1, "motion")) for mm in (0.5, 1.0)
    )
    assert (small[0] == 0).all()
    assert large == pytest.approx(2 * small)
    mean_fd = np.nanmean(motion.framewise_displacement(large))
    assert 0.05 < mean_fd < 0.6
    assert not motion.draw_motion(200, 2.0, 0.0, breathing, stream(1, "motion")).any()


def test_spin_history_fades_with_t1() -> None:
    params = np.zeros((5, 6))
    params[2:, 2] = 1.0
    memory = motion.spin_history(params, 1.4)
    assert memory == pytest.approx([0, 0, 1, np.exp(-1), np.exp(-2)])


@pytest.mark.parametrize("site", [0, 1])
def test_volumes_are_the_head_moved_by_its_pose(site: int) -> None:
    """Each volume equals the first one resampled with the true pose, and with no other."""
    parameters = Parameters(**{**QUIET.__dict__, "motion_mm": 2.0, "volumes": 12, "tr": 30.0})
    here = view(site)
    measured = scanner.scan(here, latent(400, percent=0), run_of(site, parameters), parameters)
    data, affine = measured.bold.data.astype(float), here.affine
    moved = int(np.abs(measured.params[:, :3]).sum(axis=1).argmax())
    assert np.abs(measured.params[moved, :3]).max() > 0.5
    [pose] = motion.poses(measured.params[[moved]], grid_center(here.shape, affine))
    errors = []
    for matrix in (pose, np.eye(4), np.linalg.inv(pose)):
        pull = np.linalg.inv(affine) @ np.linalg.inv(matrix) @ affine
        expected = affine_transform(data[..., 0], pull[:3, :3], pull[:3, 3], order=3)
        # Spin history dims the edge by a few per cent: compare patterns, not levels.
        errors.append(np.abs(data[..., moved] - expected)[expected > 300].mean())
    assert errors[0] < 0.35 * errors[1]
    assert errors[0] < 0.35 * errors[2]
    assert params_from_pose(pose, grid_center(here.shape, affine)) == pytest.approx(
        measured.params[moved]
    )


# --- scanner ----------------------------------------------------------------------------------


@pytest.mark.parametrize("site", [0, 1])
def test_parcel_signals_come_back_from_a_quiet_scan(site: int) -> None:
    here = view(site)
    drawn = latent(QUIET.volumes * QUIET.tr)
    measured = scanner.scan(here, drawn, run_of(site, QUIET), QUIET)
    series = measured.bold.data.reshape(-1, QUIET.volumes)[here.voxels].T.astype(float)
    change = series / series.mean(axis=0) - 1
    mixing = here.mixing
    own = mixing.multiply(mixing > 0.3)
    filled = np.asarray(own.sum(axis=0)).ravel() > 2
    recovered = (change @ own)[:, filled]
    truth = measured.timeseries[:, filled]
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(recovered.T, truth.T, strict=True)]
    assert filled.sum() > 200
    assert np.median(r) > 0.9


def test_slices_see_the_signal_at_their_own_time() -> None:
    here, drawn = view(0), latent(QUIET.volumes * QUIET.tr)
    run = run_of(0, QUIET)
    measured = scanner.scan(here, drawn, run, QUIET)
    times = measured.slice_times
    late = 17  # an odd slice in the brain: the second half of the interleaved order
    assert times[late] > 1.5
    starts = np.arange(QUIET.volumes) * QUIET.tr
    inside = np.flatnonzero(
        (here.voxels % here.shape[2] == late) & (here.mixing.max(axis=1).toarray().ravel() > 0.4)
    )
    series = measured.bold.data.reshape(-1, QUIET.volumes)[here.voxels[inside]]
    misfit = {}
    for name, when in (("own", starts + times[late]), ("start", starts)):
        expected = here.mixing[inside] @ drawn.at(when).T
        change = 100 * (series / series.mean(axis=1, keepdims=True) - 1)
        expected = expected - expected.mean(axis=1, keepdims=True)
        misfit[name] = np.abs(change - expected).mean()
    assert misfit["own"] < 0.5 * misfit["start"]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 80), st.floats(0.3, 4), st.integers(0, 3))
def test_slice_times_are_valid_bids(slices: int, tr: float, site: int) -> None:
    times, together = scene.slice_times(slices, tr, site)
    assert len(times) == slices
    assert min(times) == 0
    assert max(times) < tr
    shots = np.bincount(np.unique(times, return_inverse=True)[1])
    assert shots.max() == together and shots.sum() == slices
    assert (shots == together).all() or len(shots) == -(-slices // together)
    assert len(shots) == 1 or tr / len(shots) >= 0.0399


@pytest.mark.parametrize("slices", [53, 61])
def test_a_prime_number_of_slices_still_takes_time(slices: int) -> None:
    times, together = scene.slice_times(slices, 2.0, 0)
    assert together == 2 and max(times) > 1.9


def test_site_a_interleaves_and_site_b_ascends() -> None:
    assert np.argsort(scene.slice_times(6, 2.0, 0)[0]).tolist() == [0, 2, 4, 1, 3, 5]
    assert np.argsort(scene.slice_times(6, 2.0, 1)[0]).tolist() == list(range(6))


def test_artefacts_are_where_the_truth_says() -> None:
    here = view(0)
    parameters = Parameters(**{**QUIET.__dict__, "artefacts": True, "volumes": 60})
    measured = scanner.scan(here, latent(200, percent=0), run_of(0, parameters), parameters)
    data = measured.bold.data.astype(float)
    jump = np.abs(data - np.median(data, axis=3, keepdims=True)).max(axis=(0, 1, 2))
    lost = measured.artefacts["slice_dropout"].to_numpy() > 0
    assert lost.sum() >= 1
    assert jump[lost].min() > 200
    quiet = ~lost & (measured.artefacts["spike_percent"].to_numpy() == 0)
    assert jump[quiet].max() < 150
    none = scanner.scan(here, latent(200, percent=0), run_of(0, QUIET), QUIET)
    assert not none.artefacts[["edge", "spike_percent", "slice_dropout"]].to_numpy().any()


def test_noise_has_the_documented_size() -> None:
    parameters = Parameters(**{**QUIET.__dict__, "noise": 1.0, "volumes": 60})
    here = view(0)
    measured = scanner.scan(here, latent(200, percent=0), run_of(0, parameters), parameters)
    air = measured.bold.data[0].astype(float)
    sigma = np.sqrt((air**2).mean() / 2)  # of a Rayleigh distribution
    level = here.baseline[here.baseline > 0.3 * here.baseline.max()].mean()
    assert 100 * sigma / level == pytest.approx(scanner.NOISE["thermal"], rel=0.05)


def test_the_pulse_is_strongest_in_csf_beside_arteries() -> None:
    places = np.array([[0.0, 2, -18], [0, 2, 70]])
    close = cycles.closeness(places)
    assert close[0] == pytest.approx(1) and close[1] < 0.01
    csf, tissue = (cycles.pulsatility(np.full(2, share), close) for share in (1.0, 0.0))
    assert csf == pytest.approx([1, 0.25], abs=0.01)
    assert tissue == pytest.approx([0.25, 0], abs=0.01)


def test_a_breath_shifts_and_shades_and_more_so_below() -> None:
    steps = np.zeros((3, 9, 2), dtype=np.float32)
    steps[:, 5:] = 100
    height = np.broadcast_to(np.array([-50.0, 50.0], dtype=np.float32), steps.shape)
    change = cycles.breathing(steps, height, shift=0.1, shade=0.01)
    low, high = 1.2**3, (6 / 7) ** 3
    assert change[1, 8] == pytest.approx([1 * low, 1 * high])  # all bright: shaded only
    assert change[1, 4] == pytest.approx([-5 * low, -5 * high])  # the edge's dark side: shifted
    assert not change[:, :3].any()


def test_cycles_in_grey_matter_are_as_large_as_measured() -> None:
    """SD of heart and breath together: 0.6% at 7 T (Bianciardi et al. 2009), here up to that."""
    here = view(0)
    base = here.baseline.ravel()[here.voxels]
    grey = np.asarray(here.mixing.sum(axis=1)).ravel() > 0.6
    size = {name: percent / 100 for name, percent in scanner.NOISE.items()}
    field = cycles.breathing(here.baseline, here.height, size["breath_shift"], size["respiratory"])
    pulse, breath = scanner.rhythms(run_of(0, QUIET), 1)
    when = np.arange(0, 60, 0.1)
    heart = 100 * size["cardiac"] * here.vessels * pulse.at(when).std()
    inhaled = 100 * field.ravel()[here.voxels] / base * breath.at(when).std()
    both = np.hypot(heart, inhaled)[grey]
    assert 0.3 < np.sqrt((both**2).mean()) < 0.7
    assert np.percentile(heart, 99) > 4 * heart[grey].mean()


def test_edge_artefacts_grow_with_motion() -> None:
    params = stream(4, "moves").standard_normal((200, 6)).cumsum(axis=0) * 0.02
    params[:, 3:] /= 50
    size = [
        physiology.draw_artefacts(scale * params, 30, True, stream(4, "edge")).edge.std()
        for scale in (1.0, 3.0)
    ]
    assert size[1] == pytest.approx(3 * size[0])
    assert not physiology.draw_artefacts(0 * params, 30, True, stream(4, "edge")).edge.any()


def test_a_rhythm_keeps_its_rate() -> None:
    pulse = physiology.draw_rhythm(300, 1.1, 1.1, 0.0, stream(2, "pulse"))
    wave = pulse.at(np.arange(0, 300, 0.05))
    beats = ((wave[1:] > 0) & (wave[:-1] <= 0)).sum()
    assert beats == pytest.approx(330, rel=0.05)
    assert np.abs(wave).max() <= 1


def test_streams_are_independent_and_repeatable() -> None:
    assert stream(1, "a").integers(1 << 60) == stream(1, "a").integers(1 << 60)
    names = [("a",), ("b",), ("a", "b")]
    draws = {int(stream(seed, *name).integers(1 << 60)) for name in names for seed in (1, 2)}
    assert len(draws) == 6
