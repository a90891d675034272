#!/usr/bin/env bash
# Runs what build.sh made on this machine and checks it; see README.md.
#
#   tests/device/run.sh [FOLDER] [--out RESULTS.json] [--sanitizer]     on a machine with an NVIDIA GPU
#   tests/device/run.sh [FOLDER] --self-check                           anywhere: the harness itself, and host code
#
# Needs Python 3.10 or newer with numpy; PYTHON names another one than python3. Ends with 0, or with 3 if something
# failed or there was no GPU to run on.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
"$python" -c 'import numpy' || { printf 'run.sh: %s has no numpy; name another in PYTHON\n' "$python" >&2; exit 3; }

# The kernel workers are started from the harness's own folder; the paths that the user gave are relative to theirs.
PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 exec "$python" -m harness "$@"
