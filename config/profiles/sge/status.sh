#!/bin/sh
# Say of a Grid Engine job whether it is running (or waiting), was a success, or failed.
set -eu

job=$1
state=.snakemake/sge/$job

if [ -s "$state" ]; then
    [ "$(cat "$state")" -eq 0 ] && echo success || echo failed
elif ! jobs=$(qstat); then
    echo running # as far as is known: the master is away, and is asked again
elif line=$(echo "$jobs" | awk -v job="$job" '$1 == job {print $5}') && [ -n "$line" ]; then
    rm -f "$state.gone"
    case $line in
    *E*) echo failed && qdel "$job" >/dev/null ;; # in error: it would wait for ever
    *) echo running ;;
    esac
elif [ ! -e "$state.gone" ]; then
    touch "$state.gone" # killed, or its file is on its way over the network
    echo running
elif [ -n "$(find "$state.gone" -mmin +1)" ]; then
    echo failed
else
    echo running
fi
