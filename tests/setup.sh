#!/usr/bin/env bash
# Brings a machine to the point where skipc builds and its tests run. Safe to call again: it asks first what
# is there, prints nothing and needs no network when all of it is.
#
#   tests/setup.sh             LLVM 22 from Debian, `ptxas` and `nvdisasm` from PyPI, and `openai` for tests/serve.rs
#   tests/setup.sh --no-llvm   only looks for cargo: enough for everything but the `cuda` feature
#   tests/setup.sh --mpi       Open MPI from Debian, for training on several ranks (the `mpi` feature), and all of the above
#   tests/setup.sh --browser   Chromium from Debian, which `make report-check` reads reports with
#
# The two CUDA tools go to $SKIPC_CACHE/cuda/bin (by default .cache/cuda/bin in the repository), the client of the OpenAI
# API to an environment of its own beside them; nothing is installed into any other Python. Debian packages need root or sudo.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${SKIPC_CACHE:-$repo/.cache}/cuda/bin
llvm=/usr/lib/llvm-22

# libzstd and zlib: llvm-config names them for the linker. g++: melior's build compiles C++.
packages=(llvm-22-dev libmlir-22-dev mlir-22-tools libclang-22-dev libpolly-22-dev libzstd-dev zlib1g-dev g++)

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

check_rust() {
    has cargo || fail "cargo is missing: install Rust (https://rustup.rs), version $(min_rust) or newer"
    local have
    have=$(rustc --version | cut -d' ' -f2)
    [[ $(printf '%s\n' "$(min_rust)" "$have" | sort -V | head -n 1) == "$(min_rust)" ]] ||
        fail "rustc $have is too old: $(min_rust) or newer is needed (rustup update)"
}

check_linker() {
    has cc || fail "a C compiler is missing, with which Rust links: apt-get install gcc libc6-dev"
}

min_rust() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repo/Cargo.toml"; }

installed() {
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

as_root() {
    if [[ $EUID -eq 0 ]]; then
        env DEBIAN_FRONTEND=noninteractive "$@"
    else
        sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
    fi
}

# Installs those of the named Debian packages that are missing.
need_packages() {
    local missing=() package
    for package in "$@"; do
        installed "$package" || missing+=("$package")
    done
    if [[ ${#missing[@]} -eq 0 ]]; then
        return
    fi
    has apt-get || fail "missing, and there is no apt-get to install them: ${missing[*]}"
    if [[ $EUID -ne 0 ]] && ! { has sudo && sudo -n true 2>/dev/null; }; then
        fail "missing packages; as root, type: apt-get update && apt-get install ${missing[*]}"
    fi
    say "installing ${missing[*]}"
    # Old lists name versions that the mirror no longer has, so they are renewed before every installation.
    as_root apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 update >&2 ||
        fail "apt-get update failed; still missing: ${missing[*]}"
    for package in "${missing[@]}"; do
        [[ -n $(apt-cache madison "$package") ]] ||
            fail "no apt source has $package; Debian 12 has it with" \
                "'deb http://deb.debian.org/debian-security bookworm-security main' in /etc/apt/sources.list"
    done
    as_root apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
        install "${missing[@]}" </dev/null >&2 ||
        fail "apt-get could not install: ${missing[*]}"
}

check_llvm() {
    if has dpkg-query; then
        need_packages "${packages[@]}"
    fi
    [[ -x $llvm/bin/llvm-config && -e $llvm/lib/libMLIR.so ]] ||
        fail "LLVM and MLIR 22 are not in $llvm; outside Debian put them there and change .cargo/config.toml"
}

# A Python that has pip: the first on PATH, else the system's own.
find_python() {
    local candidate
    for candidate in python3 /usr/bin/python3; do
        if "$candidate" -m pip --version >/dev/null 2>&1; then
            printf '%s' "$candidate"
            return
        fi
    done
    return 1
}

works() { [[ -x $tools/$1 ]] && "$tools/$1" --version >/dev/null 2>&1; }

# The tools in the cache are those that tests/cuda-tools.txt asks for now.
current() { cmp -s "$repo/tests/cuda-tools.txt" "$tools/cuda-tools.txt" && works ptxas && works nvdisasm; }

fetch_cuda_tools() {
    if current; then
        return
    fi
    [[ $(uname -sm) == "Linux x86_64" ]] ||
        fail "ptxas and nvdisasm are fetched for Linux on x86_64 only; put both into $tools"
    local python work
    if ! python=$(find_python); then
        has dpkg-query || fail "python3 with pip is missing; it fetches ptxas and nvdisasm"
        need_packages python3 python3-pip
        python=$(find_python) || fail "python3 -m pip does not work; it fetches ptxas and nvdisasm"
    fi
    say "fetching ptxas and nvdisasm into $tools"
    mkdir -p "$tools"
    work=$(mktemp -d "$tools/fetch.XXXXXX")
    # shellcheck disable=SC2064  # the folder's name is fixed here
    trap "rm -rf '$work'" EXIT
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
        --dest "$work" --requirement "$repo/tests/cuda-tools.txt" </dev/null >&2 ||
        fail "could not fetch the wheels of tests/cuda-tools.txt from PyPI; ptxas and nvdisasm are missing"
    unpack "$python" "$work"
    works ptxas || fail "ptxas was fetched and does not start: $tools/ptxas --version"
    works nvdisasm || fail "nvdisasm was fetched and does not start: $tools/nvdisasm --version"
    cp "$repo/tests/cuda-tools.txt" "$tools/cuda-tools.txt"
}

# Takes the two binaries out of the wheels in folder $2 and moves each into place at once, so that a run beside
# this one never sees half a file.
unpack() {
    "$1" - "$2" "$tools" <<'PYTHON'
import os, pathlib, sys, zipfile

wheels, tools = map(pathlib.Path, sys.argv[1:])
for tool in ("ptxas", "nvdisasm"):
    for wheel in map(zipfile.ZipFile, sorted(wheels.glob("*.whl"))):
        for member in wheel.namelist():
            if member.endswith("/bin/" + tool):
                part = wheels / tool
                part.write_bytes(wheel.read(member))
                part.chmod(0o755)
                os.replace(part, tools / tool)
PYTHON
}

# The client of the OpenAI API with which tests/serve.rs talks to a server.
fetch_client() {
    if ! python3 -c 'import ensurepip, venv' >/dev/null 2>&1 && has dpkg-query; then
        need_packages python3 python3-venv
    fi
    "$repo/tests/serve/setup.sh" >/dev/null
}

check_mpi() {
    if has dpkg-query; then
        need_packages libopenmpi-dev openmpi-bin
    fi
    has mpicc && has mpirun || fail "mpicc and mpirun are missing: install an MPI with its development files"
}

case "${1-}" in
    --no-llvm | --mpi | "") ;;
    --browser)
        has "${CHROMIUM:-chromium}" || need_packages chromium
        exit 0
        ;;
    *) fail "unknown argument $1; see the head of tests/setup.sh" ;;
esac
check_rust
if [[ ${1-} != --no-llvm ]]; then
    check_llvm
    check_linker
    if [[ ${1-} == --mpi ]]; then
        check_mpi
    fi
    fetch_cuda_tools
    fetch_client
else
    check_linker
fi
