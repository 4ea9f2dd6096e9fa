#!/usr/bin/env bash
# Writes requirements/*.txt anew. Versions stay unless an .in file or pyproject.toml asks for others;
# `scripts/lock.sh --upgrade` takes the newest, `--upgrade-package NAME` the newest of one.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v uv >/dev/null || { echo "lock.sh: uv is not on PATH (pip install uv)" >&2; exit 2; }

lock() {
    local name=$1
    shift
    uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
        --output-file "requirements/$name.txt" "$@" pyproject.toml "requirements/$name.in" >/dev/null
}

# All share one .venv, or may be added to it, so all take the versions of run.
lock run "$@"
extras=(parity registry report serve)
for extra in "${extras[@]}"; do
    lock "$extra" --extra "$extra" --constraint requirements/run.txt "$@"
done
constraints=("${extras[@]/#/--constraint=requirements/}")
lock dev "${extras[@]/#/--extra=}" "${constraints[@]/%/.txt}" "$@"
lock demo --constraint requirements/run.txt "$@"
lock bench --constraint requirements/run.txt "$@"
lock fuzz --constraint requirements/run.txt "$@"

# A lock must install from any package index.
if grep -n '://' requirements/*.txt; then
    echo "lock.sh: a lock names a host (see above)" >&2
    exit 1
fi
