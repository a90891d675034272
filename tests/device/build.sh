#!/usr/bin/env bash
# Builds all that a GPU machine needs to run kernels and models, into target/device; see README.md.
#
#   tests/device/build.sh                  everything; needs LLVM 22 and ptxas (tests/setup.sh)
#   tests/device/build.sh --cpu-only       without CUDA code: enough for `run.sh --self-check`
#   tests/device/build.sh --profile dev    with cargo's profile `dev` instead of `release`
#   tests/device/build.sh --programs DIR   with programs that were built before, such as in target/release
#
# Code for CUDA is run on the PTX machine as well, for cases with one possible result: a GPU has to leave the same bits.
#
# The folder is made anew each time. CARGO_TARGET_DIR is obeyed; the result is in target/device all the same.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$repo"
out=$repo/target/device
# The repository travels with the folder, and both together should stay below 64 MiB.
limit_mib=48
targets=(cuda:sm_80 cuda:sm_90a)
example=kjv-12l-d25
cuda=true
profile=release
programs=
# What the programs said, for build.json.
n_cases=
n_machine=()

say() { printf 'device build: %s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

while [[ $# -gt 0 ]]; do
    case $1 in
        --cpu-only) cuda=false ;;
        --profile) profile=${2:?--profile takes a name}; shift ;;
        --programs) programs=$(cd "${2:?--programs takes a folder}" && pwd); shift ;;
        *) fail "unknown argument $1; see the head of tests/device/build.sh" ;;
    esac
    shift
done

# Builds skipc-run, skipc and the writer of kernel cases.
build_programs() {
    local features=()
    if $cuda; then
        "$repo/tests/setup.sh"
        features=(--features cuda)
    fi
    cargo build --locked --profile "$profile" -p skipc-runtime
    cargo build --locked --profile "$profile" "${features[@]}" --bin skipc --example kernel-cases
    programs=${CARGO_TARGET_DIR:-$repo/target}/$([[ $profile == dev ]] && echo debug || echo "$profile")
}

# Compresses a file in its place. The window is wide enough to find the same constants of another target again.
pack() { xz --lzma2=preset=6,dict=64MiB "$1"; }

# compile_model NAME FORM SPEC WEIGHTS [OPTION…]: a packed artefact.
compile_model() {
    local name=$1 form=$2 spec=$3 weights=$4
    shift 4
    "$programs/skipc" compile "$spec" --weights "$weights" -o "$out/models/$name.$form.skp" "$@" >/dev/null ||
        fail "skipc could not compile $name as $form"
    pack "$out/models/$name.$form.skp"
}

# compile_forms NAME SPEC WEIGHTS TARGET…: in the precisions that the GPU's code has.
compile_forms() {
    local name=$1 spec=$2 weights=$3 target
    shift 3
    target=$(IFS=,; printf 'cpu,%s' "$*")
    if ! $cuda; then
        compile_model "$name" f32 "$spec" "$weights" --max-tokens 1024
        return
    fi
    # Cranelift's code is for one level of instructions; four of LLVM's would be most of the folder.
    compile_model "$name" f32 "$spec" "$weights" --max-tokens 1024 --target "$target" --dtype cpu=f32,cuda=f32 \
        --cpu-backend cranelift
    compile_model "$name" bf16 "$spec" "$weights" --max-tokens 1024 --target "${target#cpu,}" --dtype cuda=bf16
}

build_models() {
    mkdir -p "$out/models"
    say "compiling the example"
    compile_forms "$example" "models/$example.toml" "models/$example.safetensors" "${targets[@]}"
    local spec case
    for spec in tests/golden/*/spec.toml; do
        case=$(dirname "$spec")
        say "compiling $case"
        compile_forms "$(basename "$case")" "$spec" "$case/weights.safetensors" cuda:sm_90a
    done
    if $cuda; then
        # On a newer GPU an artefact for the older one alone runs from its PTX.
        for case in tests/golden/{gumbel,wrap-mixed-routers}; do
            compile_model "$(basename "$case")" f32-sm_80 "$case/spec.toml" "$case/weights.safetensors" \
                --max-tokens 1024 --target cuda:sm_80 --dtype cuda=f32
        done
    fi
}

copy_golden() {
    local file to
    for file in tests/golden/*/{case.json,tokens.npy,lengths.npy,logits.npy,gates.npy,greedy.npy}; do
        to=$out/golden/$(basename "$(dirname "$file")")
        mkdir -p "$to"
        cp "$file" "$to/"
    done
}

build_kernels() {
    local place file target said
    say "writing the kernel cases"
    said=$("$programs/examples/kernel-cases" files "$out/kernels")
    n_cases=${said%% *}
    pack "$out/kernels/data.bin"
    if $cuda; then
        for target in "${targets[@]}"; do
            say "compiling them for $target"
            place=$out/kernels/${target/:/-}
            "$programs/examples/kernel-cases" modules "$target" "$place"
            said=$("$programs/examples/kernel-cases" machine "$target" "$place")
            say "$said"
            n_machine+=("\"$target\": ${said%% *}")
            for file in "$place"/*.{cubin,ptx} "$place/machine.bin"; do pack "$file"; done
        done
    fi
}

# What was built from which commit, with a mark where the tree had changes that are not in it; how many kernel cases
# there are, and for each target how many of them the PTX machine ran.
describe_build() {
    local commit list machine
    commit=$(git rev-parse HEAD)
    [[ -z $(git status --porcelain --untracked-files=no) ]] || commit+=-changed
    list=$($cuda && printf '"%s",' "${targets[@]}" || true)
    machine=$(printf '%s, ' "${n_machine[@]}")
    printf '{"commit": "%s", "cuda": %s, "profile": "%s", "targets": [%s], "kernel_cases": %s, "machine_cases": {%s}}\n' \
        "$commit" "$cuda" "$profile" "${list%,}" "$n_cases" "${machine%, }" >"$out/build.json"
}

[[ -n $programs ]] || build_programs
rm -rf "$out"
mkdir -p "$out/bin"
cp "$programs/skipc-run" "$out/bin/"
build_models
copy_golden
build_kernels
describe_build

mib=$(du -sm "$out" | cut -f1)
say "$out has $mib MiB"
[[ $mib -lt $limit_mib ]] || fail "that is more than $limit_mib MiB"
