#!/usr/bin/env bash
# Makes the virtual environment in which the peers run: PyTorch, transformers, llama.cpp, ONNX Runtime and what draws the
# plot. Safe to call again: it does nothing where that environment is.
#
#   tests/bench/peers/setup.sh [FOLDER]     by default $SKIPC_CACHE/peers, or .cache/peers in the repository
#
# It takes 1.9 GB. llama.cpp is built from source for this processor, which takes ten minutes on two cores; pip keeps what
# it built, so that the next environment has it at once. PyPI's PyTorch for Linux is linked with 4 GB more of CUDA
# libraries, which nothing calls on the CPU; stand_ins.py makes small ones in their place.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:-${SKIPC_CACHE:-$here/../../../.cache}/peers}
ready=$folder/ready

# PyTorch with the two CUDA libraries that it really loads; without what it depends on.
alone=(torch==2.11.0 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
# What PyTorch imports, and the rest.
whole=(filelock==4.2.12 typing-extensions==4.16.0 sympy==1.14.0 networkx==3.6.1 jinja2==3.1.6 fsspec==2026.9.0
    setuptools==65.5.0 numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 safetensors==0.8.0 matplotlib==3.11.2
    transformers==5.24.0 gguf==0.19.0)
# Built here, for the processor that it is built on.
built=(llama-cpp-python==0.3.36)

say() { printf 'peers: %s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

# The list of packages and the code that made the stand-ins: another one is another environment.
wanted=$(cat "${BASH_SOURCE[0]}" "$here/stand_ins.py" | sha256sum)
if [[ -f $ready && $(cat "$ready") == "$wanted" ]]; then
    exit 0
fi
for tool in python3 gcc g++ nm; do
    command -v "$tool" >/dev/null || fail "$tool is missing: apt-get install python3-venv g++ binutils"
done
say "making $folder"
rm -rf "$folder"
python3 -m venv "$folder" || fail "python3 has no venv: apt-get install python3-venv"
pip() { "$folder/bin/pip" --quiet --disable-pip-version-check install "$@"; }
pip --no-cache-dir "${whole[@]}" || fail "pip cannot install all of ${whole[*]}; they are for Python 3.11 and newer"
pip --no-cache-dir --no-deps "${alone[@]}" || fail "pip cannot install ${alone[*]}"
say "building ${built[*]}"
CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" pip "${built[@]}" || fail "pip cannot build ${built[*]}"
site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$folder/bin/python" "$here/stand_ins.py" "$site"
"$folder/bin/python" -c 'import torch' || fail "PyTorch does not start with the stand-ins; remove $folder and try again"
printf '%s' "$wanted" >"$ready"
