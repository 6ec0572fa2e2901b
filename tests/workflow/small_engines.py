"""Stand-ins for the commands of Grid Engine and LSF: jobs are processes of this machine.

Each job has a folder, called by its number: `args` holds the arguments that it was submitted with,
`log` what it said; `pid` is there while it runs (Grid Engine), `state` says how it stands (LSF).
Jobs of Grid Engine do not begin while there is a file `hold` beside them.
"""

from __future__ import annotations

from pathlib import Path

#: Takes a job number, keeps the arguments one on each line.
_NEXT = """\
#!/bin/sh
D={folder}
n=1
while ! mkdir "$D/$n" 2>/dev/null; do n=$((n + 1)); done
printf '%s\\n' "$@" >"$D/$n/args"
"""

_GRID_ENGINE = {
    "qsub": _NEXT
    + """\
cat >"$D/$n/script"
JOB_ID=$n setsid sh -c 'while [ -e "$0/../hold" ]; do sleep 0.2; done
    sh "$0/script" >"$0/log" 2>&1; rm -f "$0/pid"' "$D/$n" </dev/null >/dev/null 2>&1 &
echo $! >"$D/$n/pid"
echo $n
""",
    "qstat": """\
#!/bin/sh
cd {folder} || exit 1
for job in */pid; do
    [ -e "$job" ] && echo "  ${{job%/pid}} 0.50000 brainlm me r 01/01/2026 12:00:00"
done
exit 0
""",
    "qdel": """\
#!/bin/sh
cd {folder} || exit 1
for job in "$@"; do
    [ -e "$job/pid" ] && kill -KILL "-$(cat "$job/pid")" && rm -f "$job/pid"
done
exit 0
""",
}

_LSF = {
    "bsub": _NEXT
    + """\
for last in "$@"; do :; done
echo RUN >"$D/$n/state"
setsid sh -c 'sh -c "$1" >"$0/log" 2>&1 && echo DONE >"$0/state" || echo EXIT >"$0/state"' \\
    "$D/$n" "$last" </dev/null >/dev/null 2>&1 &
echo "Job <$n> is submitted to default queue <normal>."
""",
    "bjobs": """\
#!/bin/sh
cd {folder} || exit 1
for job in */state; do [ -e "$job" ] && echo "${{job%/state}} $(cat "$job")"; done
""",
    "badmin": """\
#!/bin/sh
printf 'MBD configuration at now:\\n'
printf ' LSB_SHAREDIR = {folder}/share\\n LSF_CONFDIR = {folder}/conf\\n'
printf ' LSF_UNIT_FOR_LIMITS = MB\\n'
""",
    "lsclusters": """\
#!/bin/sh
printf 'CLUSTER_NAME STATUS\\nsmall ok\\n'
""",
}


def install(engine: str, programs: Path, folder: Path) -> None:
    """Write the commands of an engine (`sge` or `lsf`) into `programs`; jobs go to `folder`."""
    programs.mkdir()
    folder.mkdir()
    for name, text in {"sge": _GRID_ENGINE, "lsf": _LSF}[engine].items():
        filled = text.replace("{folder}", str(folder)).replace("{{", "{").replace("}}", "}")
        (programs / name).write_text(filled)
        (programs / name).chmod(0o755)
    if engine == "lsf":
        place = folder / "conf" / "lsbatch" / "small" / "configdir"
        place.mkdir(parents=True)
        (place / "lsb.params").write_text("DEFAULT_QUEUE = normal\n")
        events = folder / "share" / "small" / "logdir"
        events.mkdir(parents=True)
        (events / "lsb.events").touch()
