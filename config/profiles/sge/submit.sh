#!/bin/sh
# Submit one job of Snakemake's to Grid Engine and print its number.
#   submit.sh RULE THREADS MEMORY_MB MINUTES GPUS SCRIPT
set -eu

# --- of your site ------------------------------------------------------------------------------
parallel_environment=smp # `qconf -spl` lists them: one whose slots are all on one node
time_limit=h_rt          # s
memory_limit=h_vmem      # MB of one slot, as most sites have it
gpus_wanted=gpu          # the consumable of GPUs: `qconf -sc`
more=                    # e.g. "-q long.q -P mylab"
# -----------------------------------------------------------------------------------------------

rule=$1 threads=$2 memory_mb=$3 minutes=$4 gpus=$5 script=$6
states=.snakemake/sge
logs=logs/sge
mkdir -p "$states" "$logs"
unset BRAINLM_RUN # else -V passes it on, and a job on this machine is taken for a part of this run

set -- -terse -cwd -V -S /bin/sh -j y -o "$logs" -N "brainlm.$rule"
set -- "$@" -l "$time_limit=$((minutes * 60)),$memory_limit=$(((memory_mb + threads - 1) / threads))M"
[ "$threads" -eq 1 ] || set -- "$@" -pe "$parallel_environment" "$threads"
[ "$gpus" -eq 0 ] || set -- "$@" -l "$gpus_wanted=$gpus"

# The job leaves its exit code in a file of its number: no accounting is needed to learn it.
# shellcheck disable=SC2086
qsub "$@" $more <<END
sh '$script'
code=\$?
echo \$code >'$states'/.\$JOB_ID.\$\$ && mv '$states'/.\$JOB_ID.\$\$ '$states'/\$JOB_ID
exit \$code
END
