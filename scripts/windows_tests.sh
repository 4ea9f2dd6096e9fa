#!/usr/bin/env bash
# Runs the tests on Windows, which is that of Wine: the portable ones inside, and tests/windows from outside.
# `scripts/windows_tests.sh slice` takes a part of about two minutes. Where Wine, Maven or a package cannot be had, it prints
# a line and ends well. Needs .venv (make test-windows makes it); the rest goes to .windows/.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-whole}
# What asks Windows for something. One process, because under Wine another takes long to start.
inside=(tests/test_bytes_at.py tests/test_durable.py tests/test_lock.py tests/test_trash.py)
[[ $what == slice ]] || inside=(-n 2 tests)

code=0
.venv/bin/python -m tests.windows.wine --version || code=$?
((code == 3)) && exit 0
((code == 0)) || exit "$code"

failed=0
echo "Windows: inside, $what"
# The tests read their own files as UTF-8. From outside, the program runs without this.
PYTHONUTF8=1 .venv/bin/python -m tests.windows.wine -m pytest -q -p tests.windows.posix -p no:cacheprovider "${inside[@]}" || failed=1
echo "Windows: from outside, $what"
OSTORE_WINDOWS=$what .venv/bin/python -m pytest -q -n 2 tests/windows || failed=1
exit $failed
