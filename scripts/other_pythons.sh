#!/usr/bin/env bash
# Runs a slice of the tests on every other Python of 3.11 to 3.14 that this machine has: on PATH, or from pyenv.
# One that is not here, or whose packages cannot be had, is a line; a test that fails is a failure.
# Needs .venv (make pythons makes it); what the others need goes to .pythons/.
set -euo pipefail
cd "$(dirname "$0")/.."

# Every floor but `host`, and that the program starts; a minute or two for each.
slice=(
    tests/test_bundle_index.py tests/test_digest.py tests/test_json_reading.py tests/test_manifest.py tests/test_name.py
    tests/test_tar_header.py tests/test_text.py tests/test_zstd_frame.py
    tests/test_durable.py tests/test_lock.py tests/test_tar.py tests/test_verified.py
    tests/test_census.py tests/test_foreign_caches.py tests/test_references.py tests/test_trash.py
    tests/test_gc_plan.py tests/test_removal_plan.py tests/test_roundtrip.py tests/test_selection.py
    tests/test_cli.py tests/test_config.py tests/test_verify.py
)

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

found() { # the program that runs this version, if there is one; pyenv's own may be a stand-in for none
    local program
    for program in "python$1" "$HOME/.pyenv/versions/$1".*/bin/python; do
        [[ $(version_of "$program") == "$1" ]] && echo "$program" && return
    done
}

made() { # the environment of a version, by the rules of .venv
    local folder=$1 program=$2
    [[ $folder/.dev -nt requirements/dev.txt && $folder/.dev -nt pyproject.toml ]] && return
    rm -rf "$folder"
    "$program" -m venv "$folder" &&
        "$folder/bin/python" -m pip install --quiet --require-hashes -r requirements/dev.txt &&
        "$folder/bin/python" -m pip install --quiet --no-build-isolation --no-deps -e . &&
        touch "$folder/.dev"
}

here=$(version_of .venv/bin/python)
failed=()
mkdir -p .pythons
for version in 3.11 3.12 3.13 3.14; do
    [[ $version == "$here" ]] && continue
    program=$(found "$version") || true
    if [[ -z $program ]]; then
        echo "Python $version: not on this machine"
    elif ! made ".pythons/$version" "$program" 2>.pythons/log; then
        echo "Python $version: its packages cannot be had: $(tail -n 1 .pythons/log)"
    else
        echo "Python $version: a slice of the tests"
        ".pythons/$version/bin/python" -m pytest -q -n 2 "${slice[@]}" || failed+=("$version")
    fi
done
if ((${#failed[@]})); then
    echo "other_pythons.sh: failed on ${failed[*]}" >&2
    exit 1
fi
