#!/usr/bin/env bash
# Builds the wheel of the Python package and tests it: `make python`.
#
#   python/test.sh [ARGUMENTS OF PYTEST]     PROFILE is cargo's, `release` by default; SKIPC the command line to compare with
#
# The wheel goes to target/wheels. maturin and what tests need are fetched at the first call, into $SKIPC_CACHE/python; the
# wheel is installed into an environment that is made anew each time. PyTorch is that of `make peers`, if it is there; without
# it, what needs PyTorch is skipped and counted.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
cache=${SKIPC_CACHE:-$root/.cache}
tools=$cache/python
tested=$root/target/python
ready=$tools/requirements.txt
fail() { printf 'python: %s\n' "$*" >&2; exit 1; }

if ! cmp -s "$here/requirements.txt" "$ready"; then
    rm -rf "$tools"
    python3 -m venv "$tools" || fail "python3 has no venv: apt-get install python3-venv"
    "$tools/bin/pip" --quiet --disable-pip-version-check install --no-deps --require-hashes --requirement "$here/requirements.txt" </dev/null >&2
    cp "$here/requirements.txt" "$ready"
fi

features=()
[[ -x /usr/lib/llvm-22/bin/llvm-config ]] && features=(--features cuda)
wheels=$root/target/wheels
rm -rf "$wheels" "$tested"
# Linked with the LLVM of this machine, so a wheel for it alone.
"$tools/bin/maturin" build --quiet --manifest-path "$here/Cargo.toml" --profile "${PROFILE:-release}" --locked "${features[@]}" \
    --compatibility linux --out "$wheels"

python3 -m venv "$tested"
"$tested/bin/pip" --quiet --disable-pip-version-check install --no-deps --no-index "$wheels"/skipc-*.whl
site=$("$tested/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# What the tests need, found behind what is installed.
for packages in "$tools" "$cache/peers"; do
    [[ -d $packages ]] && printf '%s\n' "$packages/lib/$(basename "$(dirname "$site")")/site-packages" >>"$site/behind.pth"
done
# Not from here, where Python would find the package's folder, which has no library, before what is installed.
cd "$tested"
SKIPC=${SKIPC:-$root/target/release/skipc} "$tested/bin/python" -m pytest -p no:cacheprovider -c "$here/pyproject.toml" "$here/tests" "$@"
