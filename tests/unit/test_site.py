"""What a Slurm site offers, and the profile that is fitted to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from brainlm.bids.study import set_up_study
from brainlm.cluster.profile import (
    Choice,
    choose,
    fill,
    is_ours,
    longest,
    marked,
    partitions_text,
    profile_file,
    read_profile,
    template_folder,
    write_profile,
)
from brainlm.cluster.site import (
    Partition,
    Site,
    find_site,
    minutes,
    own_groups,
    read_config,
    read_partitions,
)
from brainlm.errors import InputError
from brainlm.resources import share_dir

_TEMPLATE = (template_folder() / "config.yaml").read_text()
#: Of a university's cluster, as `scontrol show partition --oneliner` tells; the fields that matter.
_PARTITIONS = """\
PartitionName=normal AllowGroups=ALL AllowAccounts=ALL Default=YES MaxTime=7-00:00:00 State=UP
PartitionName=gpu-debug AllowAccounts=ALL Default=NO MaxTime=01:00:00 PriorityTier=9 State=UP
PartitionName=gpu AllowAccounts=neuro,vision Default=NO MaxTime=2-00:00:00 RootOnly=NO State=UP
PartitionName=chair AllowGroups=chair AllowAccounts=ALL Default=NO MaxTime=UNLIMITED State=UP
PartitionName=old AllowGroups=ALL AllowAccounts=ALL Default=NO MaxTime=1:30:00 State=DOWN
PartitionName=mixed AllowGroups=ALL Default=NO MaxTime=UNLIMITED PriorityTier=1 State=UP
"""
_NODES = """\
normal|20|192000|(null)
gpu-debug|1|500000|gpu:a100:4(S:0-1)
gpu|4|500000|gpu:a100:4(S:0-1),nvme:1
gpu|2|1000000|gpu:h100:8
chair|9|1000|gpu:8
old|3|1000|(null)
mixed|20|64000|(null)
mixed|2|64000|gpu:1g.10gb:7
"""


def site(no_accounting: str | None = None, accounts: tuple[str, ...] = ("lab", "neuro")) -> Site:
    partitions = read_partitions(_PARTITIONS, _NODES, {"users"}, accounts)
    return Site("uni", partitions, accounts, no_accounting, 300)


def test_partitions_are_read_with_their_gpus_limits_and_users() -> None:
    found = {one.name: one for one in site().partitions}
    assert found["normal"] == Partition(
        "normal", default=True, max_minutes=10080, mem_mb=192000, nodes=20
    )
    assert found["gpu"] == Partition(
        "gpu",
        accounts=("neuro", "vision"),
        max_minutes=2880,
        mem_mb=1000000,
        nodes=6,
        gpu_nodes=6,
        gpus=32,
        models=("a100", "h100"),
    )
    assert found["mixed"].gpus == 14 and found["mixed"].gpu_nodes == 2
    assert [name for name, one in found.items() if not one.usable] == ["chair", "old"]


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("UNLIMITED", None),
        ("infinite", None),
        ("90", 90),
        ("30:00", 30),
        ("1:30:00", 90),
        ("2-00:00:00", 2880),
        ("2-12", 3600),
        ("1-02:30", 1590),
    ],
)
def test_times_of_slurm(time: str, expected: int | None) -> None:
    assert minutes(time) == expected


def test_the_config_of_a_controller() -> None:
    text = (
        "Configuration data\nMinJobAge               = 300 sec\nA = b=c\n\nSlurmctld at x is UP\n"
    )
    assert read_config(text) == {"MinJobAge": "300 sec", "A": "b=c"}


def test_groups_are_found_where_the_directory_lists_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As sssd does, unless it is told to enumerate."""
    import grp

    own = own_groups()
    monkeypatch.setattr(grp, "getgrall", list)
    assert own_groups() == own
    assert own


def test_where_there_is_no_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_site() is None
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")  # and one whose controller is away
    (tmp_path / "sinfo").write_text("#!/bin/sh\nexit 1\n")
    for name in ("sbatch", "sinfo"):
        (tmp_path / name).chmod(0o755)
    assert find_site() is None


def test_partitions_are_chosen_for_ordinary_long_jobs() -> None:
    chosen = choose(site())
    assert str(chosen) == "CPU jobs to partition normal, GPU jobs to gpu, account neuro"
    assert longest(chosen) == 2880
    # The default account, where all partitions take it.
    assert choose(site(accounts=("vision", "neuro"))).account == "vision"
    given = choose(site(), partition="mixed", gpu_partition="mixed", account="lab")
    assert given == Choice(site().partition("mixed"), site().partition("mixed"), "lab")
    assert longest(given) is None
    with pytest.raises(InputError, match="no partition huge"):
        choose(site(), partition="huge")


def test_a_site_whose_nodes_all_have_gpus() -> None:
    only = Partition("all", default=True, nodes=4, gpu_nodes=4, gpus=16)
    chosen = choose(Site("small", (only,)))
    assert (chosen.cpu, chosen.gpu, chosen.account) == (only, only, None)
    assert yaml.safe_load(partitions_text(chosen)) == {"partitions": {"all": {"max_gpu": 16}}}


def test_the_filled_profile_differs_from_the_shipped_one_in_the_sites_lines_alone() -> None:
    shipped = yaml.safe_load(_TEMPLATE)
    filled = yaml.safe_load(fill(_TEMPLATE, site(), choose(site())))
    assert filled.pop("slurm-partition-config") == "partitions.yaml"
    assert filled.pop("resources") == {"runtime": 2880, "mem_mb": 192000}
    assert filled.pop("set-resource-scopes") == {"runtime": "local"}
    assert filled.pop("slurm-status-command") == "sacct"
    assert filled.pop("slurm-efficiency-report") is True
    assert filled.pop("slurm-efficiency-report-path") == "logs/efficiency"
    assert filled["default-resources"].pop("slurm_account") == "neuro"
    assert filled == shipped

    poor = site("this cluster keeps no accounting", accounts=())
    filled = yaml.safe_load(fill(_TEMPLATE, poor, Choice(None, None, None)))
    assert filled.pop("slurm-status-command") == "squeue"
    assert filled == shipped


@pytest.mark.parametrize("account", ["0042", "no", "a b", "u:1", "1e5", "Müller", r"uni\neuro"])
def test_odd_accounts_stay_strings(account: str) -> None:
    filled = yaml.safe_load(fill(_TEMPLATE, site(), choose(site(), account=account)))
    assert filled["default-resources"]["slurm_account"] == account


def test_a_profile_is_made_anew_until_somebody_edits_it(tmp_path: Path) -> None:
    first = write_profile(tmp_path, site(), choose(site()))
    assert [path.name for path in first] == ["config.yaml", "partitions.yaml"]
    assert write_profile(tmp_path, site(), choose(site())) == []
    again = write_profile(tmp_path, site(), choose(site(), account="lab"))
    assert [path.name for path in again] == ["config.yaml"]

    config = tmp_path / "config.yaml"
    config.write_text(edited := config.read_text().replace("jobs: 200", "jobs: 20"))
    beside = write_profile(tmp_path, site(), choose(site()))
    assert [path.name for path in beside] == ["config.yaml.new"]
    assert config.read_text() == edited
    forced = write_profile(tmp_path, site(), choose(site()), force=True)
    assert [path.name for path in forced] == ["config.yaml"]
    assert config.read_text() == beside[0].read_text() != edited


def test_a_clones_profile_names_its_table_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(_TEMPLATE)
    write_profile(tmp_path, site(), choose(site()), clone=True)
    assert (tmp_path / "config.yaml").read_text() == _TEMPLATE  # of it new studies are made
    content = yaml.safe_load(profile_file(tmp_path).read_text())
    assert content["slurm-partition-config"] == str((tmp_path / "partitions.yaml").resolve())


def test_what_somebody_wrote_into_the_template_is_kept() -> None:
    edited = _TEMPLATE.replace("  # slurm_account: ACCOUNT", "  slurm_account: mine").replace(
        "#   runtime: MINUTES\n", ""
    )
    content = yaml.safe_load(fill(edited, site(), choose(site())))
    assert content["default-resources"]["slurm_account"] == "mine"
    assert "resources" not in content
    assert content["slurm-partition-config"] == "partitions.yaml"


def test_the_shipped_profile_is_nobodys_edit(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(_TEMPLATE)
    written = write_profile(tmp_path, site(), choose(site()))
    assert [path.name for path in written] == ["config.yaml", "partitions.yaml"]


@pytest.mark.parametrize("text", ["", "\n", "a: 1\n", "a: 1\nb: 2\n"])
def test_a_changed_line_is_seen(text: str) -> None:
    assert is_ours(marked(text))
    assert not is_ours(marked(text) + "c: 3\n")
    assert not is_ours("c: 3\n" + marked(text))
    assert not is_ours(text)


def test_what_the_check_reads_from_a_profile(tmp_path: Path) -> None:
    write_profile(tmp_path, site(), choose(site()))
    following, samples = read_profile(tmp_path, site())
    assert (following.command, following.first_look_s) == ("sacct", 20)
    assert [one.partition for one in samples] == ["normal", "gpu"]
    assert [one.gpus for one in samples] == [0, 1]
    assert samples[0].arguments == [
        *("--partition=normal", "--account=neuro", "--time=60", "--mem=2000"),
    ]
    text = "default-resources:\n  - slurm_partition=mixed\n  - runtime=2h\n"
    (tmp_path / "config.yaml").write_text(text + "slurm-partition-config: partitions.yaml\n")
    (tmp_path / "partitions.yaml").write_text("partitions:\n  gpu:\n")
    _, samples = read_profile(tmp_path, site())
    assert [one.partition for one in samples] == ["mixed", "mixed"]


def test_onboarding_fills_in_the_profile_of_a_new_study_alone(tmp_path: Path) -> None:
    from brainlm.config import parse_config
    from brainlm.layout import Study

    config = parse_config({"name": "x", "bids_dir": "bids"}, source="test")
    study = Study(tmp_path)
    assert set_up_study(study, config, "x", site) == choose(site())
    profile = tmp_path / "slurm" / "config.yaml"
    assert "slurm_account: neuro" in profile.read_text()
    profile.write_text("# mine\n")
    assert set_up_study(study, config, "x", site) is None
    assert profile.read_text() == "# mine\n"


def test_a_new_study_inherits_nothing_that_the_clones_site_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brainlm.config import parse_config
    from brainlm.layout import Study

    clones = tmp_path / "clone" / "config" / "profiles" / "slurm"
    clones.mkdir(parents=True)
    (clones / "config.yaml").write_text(_TEMPLATE)
    write_profile(clones, site(), choose(site()), clone=True)
    monkeypatch.setattr("brainlm.bids.study.share_dir", lambda: tmp_path / "clone")
    config = parse_config({"name": "x", "bids_dir": "bids"}, source="test")
    set_up_study(Study(tmp_path / "study"), config, "x")
    made = tmp_path / "study" / "slurm"
    assert [path.name for path in made.iterdir()] == ["config.yaml"]


def test_a_rule_that_is_tried_again_asks_for_more_memory() -> None:
    for path in (share_dir() / "workflow" / "rules").glob("*.smk"):
        for line in re.findall(r"^        mem_mb=.*", path.read_text(), re.M):
            assert "* attempt," in line, f"{path.name}: {line}"


def test_the_profile_names_every_rule_that_uses_gpus() -> None:
    rules = share_dir() / "workflow" / "rules"
    with_gpus = set()
    for path in rules.glob("*.smk"):
        for name, body in re.findall(r"^rule (\w+):\n((?:    .*\n|\n)+)", path.read_text(), re.M):
            if re.search(r"^        \*\*study\.\w+\.resources,", body, re.M):
                with_gpus.add(name)
    text = _TEMPLATE[_TEMPLATE.index("# set-resources:\n") :]
    block = "\n".join(line[2:] for line in text.splitlines() if line.startswith("# "))
    block = block[: block.index("Recordings that one job")]
    assert set(yaml.safe_load(block)["set-resources"]) == with_gpus
    assert len(with_gpus) > 10


def test_the_commands_say_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from brainlm.cli import cluster as command

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no Slurm cluster that answers here"):
        command.check(tmp_path)
    monkeypatch.setattr("brainlm.cluster.site.find_site", site)
    with pytest.raises(InputError, match="There is no Slurm profile"):
        command.profile(tmp_path)
    folder = tmp_path / "config" / "profiles" / "slurm"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("jobs: 7\n")
    command.profile(tmp_path)
    told = capsys.readouterr().out
    assert "partition gpu: 6 nodes, 32 GPUs a100 h100, at most 2880 minutes" in told
    assert "partition chair: 9 nodes, 72 GPUs, no time limit, not for you" in told
    assert "config.yaml.new: compare with your own, or --force" in told
    assert "partitions.yaml: written" in told
    assert (folder / "config.yaml").read_text() == "jobs: 7\n"
