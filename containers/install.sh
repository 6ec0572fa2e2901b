#!/bin/sh
# Installs brainlm into /opt/brainlm: what the image recipes of this folder have in common. It runs
# in a copy of the repository's root.
#   install.sh packages EXTRA,...   everything that brainlm needs for these extras, as locked
#   install.sh brainlm              brainlm itself
set -eu

venv=/opt/brainlm
tools=/tmp/build-tools

case $1 in
packages)
    python3 -m venv "$venv"
    if [ -n "${TORCH_INDEX:-}" ]; then
        "$venv/bin/pip" install --no-cache-dir --index-url "$TORCH_INDEX" \
            "$(grep '^torch==' requirements.lock)"
    fi
    python3 containers/wanted.py "$2" >/tmp/wanted.txt
    "$venv/bin/pip" install --no-cache-dir --constraint requirements.lock --requirement /tmp/wanted.txt
    ;;
brainlm)
    python3 -m venv "$tools"
    "$tools/bin/pip" install --no-cache-dir --constraint requirements.lock hatchling
    "$tools/bin/pip" wheel --no-deps --no-build-isolation --wheel-dir /tmp/wheels .
    "$venv/bin/pip" install --no-cache-dir --no-deps /tmp/wheels/*.whl
    rm -rf "$tools" /tmp/wheels /tmp/wanted.txt
    ;;
*)
    echo "install.sh: packages EXTRA,... or brainlm, not '$1'" >&2
    exit 2
    ;;
esac
