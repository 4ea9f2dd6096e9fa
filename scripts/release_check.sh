#!/usr/bin/env bash
# Builds sdist and wheel twice and compares them, then runs the wheel in an empty environment, and the tutorial with it.
# Needs .venv (make release-check makes it). Leaves the result in dist/.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "release-check: $*" >&2; exit 1; }

root=$PWD
python=$root/.venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Any fixed instant will do outside a git checkout; zip cannot say one before 1980.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 315532800)}
export SOURCE_DATE_EPOCH

build() { "$python" -m hatchling build --directory "$1" "${@:2}" >"$work/log" 2>&1 || fail "$(cat "$work/log")"; }

(umask 022 && TZ=UTC build "$work/first")
(umask 077 && TZ=Asia/Tokyo build "$work/second")
mkdir "$work/source"
tar -xzf "$work"/first/*.tar.gz -C "$work/source" --strip-components=1
(cd "$work/source" && build "$work/third" --target wheel)
for built in "$work"/first/*; do
    cmp "$built" "$work/second/${built##*/}" || fail "${built##*/} differs between two builds"
done
cmp "$work"/first/*.whl "$work"/third/*.whl || fail "the wheel built from the sdist differs"

find ostore -type f ! -path '*/__pycache__/*' | LC_ALL=C sort >"$work/wanted"
"$python" -m zipfile -l "$work"/first/*.whl | awk '$1 ~ /^ostore\// { print $1 }' | LC_ALL=C sort >"$work/packed"
diff "$work/wanted" "$work/packed" || fail "the wheel does not hold exactly the files of ostore/"

"$python" -m venv "$work/empty"
"$work/empty/bin/python" -m pip install --quiet --require-hashes -r requirements/run.txt
"$work/empty/bin/python" -m pip install --quiet --no-deps --no-index "$work"/first/*.whl
"$work/empty/bin/python" -m pip check >/dev/null || fail "pip check: a dependency is missing"
wanted=$("$python" -m hatchling version)
cd "$work"
said=$("$work/empty/bin/ostore" --version)
[[ $said == "ostore $wanted" ]] || fail "ostore --version says '$said', the package says '$wanted'"

# The tutorial word for word, with its lines of pip: the wheel just built stands in for the published one.
sed -n 's/^\([a-z0-9._-]*==[^ ]*\).*/\1/p' "$root/requirements/run.txt" >"$work/constraints"
echo "ostore==$wanted" >>"$work/constraints"
(cd "$root" && OSTORE_TEST_WHEELS=$work/first PIP_FIND_LINKS="$work/first ${PIP_FIND_LINKS-}" \
    PIP_CONSTRAINT=$work/constraints "$python" -m pytest -q tests/test_guides.py -k tutorial) || fail "the tutorial does not hold"

mkdir -p "$root/dist"
cp "$work"/first/* "$root/dist/"
echo "release-check: $said"
(cd "$root/dist" && for built in "$work"/first/*; do sha256sum "${built##*/}"; done)
