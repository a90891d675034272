#!/usr/bin/env bash
# Makes the virtual environment with the `openai` client that tests/serve.rs runs. Safe to call again: it does nothing
# where that environment is.
#
#   tests/serve/setup.sh     in $SKIPC_CACHE/openai, or .cache/openai in the repository
#
# Prints the path of its Python.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${SKIPC_CACHE:-$here/../../.cache}/openai
ready=$folder/requirements.txt

if ! cmp -s "$here/requirements.txt" "$ready"; then
    printf 'setup: fetching the openai client into %s\n' "$folder" >&2
    rm -rf "$folder"
    if ! python3 -m venv "$folder"; then
        printf 'setup: python3 has no venv: apt-get install python3-venv\n' >&2
        exit 1
    fi
    "$folder/bin/pip" --quiet --disable-pip-version-check install --no-cache-dir --no-deps --require-hashes \
        --requirement "$here/requirements.txt" </dev/null >&2
    cp "$here/requirements.txt" "$ready"
fi
printf '%s\n' "$folder/bin/python"
