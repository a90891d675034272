//! The command line: arguments, and one file per command.

mod assertion;
mod bench;
mod bench_capacity;
mod bench_decode;
mod check;
mod compile;
mod cost;
mod diff;
mod doctor;
mod eval;
mod exit;
mod explain;
mod explanation;
mod generate;
mod init;
mod inspect;
mod list;
mod manual;
mod opt;
mod profile;
mod progress;
mod repro;
mod run;
mod sass;
mod serve;
mod shares;
mod sign;
mod source;
mod trace;
mod train;
mod train_log;
mod train_plot;
mod tune;
mod values;
mod verify;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use skipc_artifact::reader::Index;
use skipc_runtime::Device;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::error::{Error, ErrorKind};

pub use exit::{exit_code, report, say, show};
pub use serve::ServeArgs;
pub use skipc_runtime::command::{Files, TrustArgs};
pub use source::CheckpointArgs;
pub use values::{CpuBackendArg, CpuLevelsArg, KeyValuesArg, SkipRunsArg, VariantArg};

/// Compiles models whose tokens decide, layer by layer, whether the layer runs.
#[derive(Debug, Parser)]
#[command(name = "skipc", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// Print results and errors as JSON.
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Parse, resolve, type and lint a model spec; print the resolved model.
    Check(CheckArgs),
    /// Draw random weights for a model spec.
    Init(InitArgs),
    /// Compile a model into one artefact with code for every target.
    Compile(CompileArgs),
    /// Run an artefact: score tokens, or continue a text.
    Run(skipc_runtime::command::RunArgs),
    /// Continue texts or sequences of tokens: greedily, by draws, or by beam search.
    Generate(skipc_runtime::command::GenerateArgs),
    /// Serve an artefact over HTTP, as the OpenAI API has it.
    Serve(serve::ServeArgs),
    /// Score texts or sequences of tokens: loss, bits per byte, perplexity, and what was skipped.
    Eval(EvalArgs),
    /// Show what is in an artefact: IR by phase, kernels, buffers, skipping.
    Inspect(InspectArgs),
    /// Say what is different between two specs, artefacts or graphs: options, model, graphs, kernels, memory, cost, code.
    Diff(diff::DiffArgs),
    /// Sign an artefact, so that whoever gets it can run it with `--trust` and knows whose code that is; or make a key for it.
    Sign(sign::SignArgs),
    /// Check that every form of the model in an artefact gives the same results.
    Verify(VerifyArgs),
    /// Time a model on the host in three forms over densities: as compiled, with every op a kernel of its own, and with
    /// all rows computed.
    Bench(BenchArgs),
    /// Show where the time of a step goes on the CPU: by kernel, block, density and thread, beside what the machine can.
    Profile(profile::ProfileArgs),
    /// Time the forms of a model's kernels on this machine, for `skipc compile --tuning`.
    Tune(TuneArgs),
    /// Train a model: from the first weights, from those of a file, or from a checkpoint; under `mpirun` on several processes, each
    /// with its rows of every batch.
    Train(TrainArgs),
    /// Say what an error code means, or list them all.
    Explain(ExplainArgs),
    /// Run passes on a graph in its text form.
    Opt(OptArgs),
    /// Record, generate or show routing traces: decisions that any backend replays with `run --routing`.
    #[command(subcommand)]
    Trace(TraceCommand),
    /// Say what this machine has of what skipc can use.
    Doctor,
    /// List the targets and what each can do.
    Targets,
    /// List the passes, in the order in which they run.
    Passes,
    /// List the rules of the pass `saturate`.
    Rules,
    /// List the ops of the IR.
    Ops,
    /// Print the script that lets a shell complete commands and options.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write a manual page for each command.
    Man {
        /// Folder for the pages.
        dir: PathBuf,
    },
}

/// Arguments of `skipc check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Model spec (TOML), or a directory as Hugging Face has them, with config.json and weights.
    pub spec: PathBuf,

    /// Weights (safetensors) to check against the spec; a directory has its own.
    #[arg(long)]
    pub weights: Option<PathBuf>,

    /// Of a directory.
    #[command(flatten)]
    pub checkpoint: CheckpointArgs,

    /// Make findings of these lints errors: a code such as `lint::future_leak`, `leaks`, or `all`.
    #[arg(long, value_delimiter = ',', value_name = "LINT")]
    pub deny: Vec<String>,
}

/// Arguments of `skipc init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Model spec (TOML), or a directory as Hugging Face has them: then weights are made for its routers alone, with which
    /// every token executes.
    pub spec: PathBuf,

    /// Of a directory.
    #[command(flatten)]
    pub overlay: source::OverlayArgs,

    /// Where to write the weights.
    #[arg(short, long, value_name = "W.safetensors")]
    pub output: PathBuf,

    /// The same seed and spec give the same weights.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// How to store them: `f32`, `bf16` or `f16`.
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    pub dtype: String,
}

/// Arguments of `skipc explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Code, such as `spec::unknown_key`, or a family of them, such as `spec`.
    pub code: Option<String>,
}

/// Arguments of `skipc compile`.
#[derive(Debug, Args)]
pub struct CompileArgs {
    /// Model spec (TOML), or a directory as Hugging Face has them, with config.json and weights.
    pub spec: PathBuf,

    /// Weights (safetensors); a directory has its own.
    #[arg(long)]
    pub weights: Option<PathBuf>,

    /// Of a directory.
    #[command(flatten)]
    pub checkpoint: CheckpointArgs,

    /// Where to write the artefact.
    #[arg(short, long, value_name = "M.skp", required_unless_present = "emit")]
    pub output: Option<PathBuf>,

    /// Write constants to a second file, which belongs beside the artefact [default name: the artefact's, with `.skw`].
    #[arg(
        id = "external_output",
        long = "external-weights",
        value_name = "M.skw",
        num_args = 0..=1,
        require_equals = true,
        requires = "output"
    )]
    pub external_output: Option<Option<PathBuf>>,

    /// Targets: `cpu`, `cuda:sm_80`, `cuda:sm_90a`, …
    #[arg(long, value_delimiter = ',', default_value = "cpu")]
    pub target: Vec<String>,

    /// What generates code for `cpu` [default: llvm, or cranelift in a build without LLVM].
    #[arg(long, value_enum, value_name = "B", default_value_t = CpuBackendArg::default(), hide_default_value = true)]
    pub cpu_backend: CpuBackendArg,

    /// Which processors LLVM's code for `cpu` is made for.
    #[arg(long, value_enum, value_name = "L", default_value_t)]
    pub cpu_levels: CpuLevelsArg,

    /// Precision of the layers, for each kind of target: `cpu=f32`, `cpu=bf16` (by LLVM), `cpu=q8` (bf16 with weights of 8 bits
    /// and scales for blocks of 32, by LLVM), `cuda=bf16` or `cuda=f32`.
    #[arg(long, value_delimiter = ',', default_value = "cpu=f32,cuda=bf16", value_name = "KIND=TYPE")]
    pub dtype: Vec<String>,

    /// Without the function that goes on with sequences: half the code, for artefacts that only score. Such an artefact
    /// generates by running whole prefixes.
    #[arg(long, conflicts_with = "kv")]
    pub no_steps: bool,

    /// When a step computes keys and values of tokens that skip a layer: `eager`, when the token comes; `lazy`, when a later
    /// token of its sequence executes the layer [default: lazy for `cpu` if the model skips at least half, else eager].
    #[arg(long, value_enum, value_name = "WHEN")]
    pub kv: Option<KeyValuesArg>,

    /// What the routers of layers that follow one another read in a step: `together`, the tokens that come to the first layer
    /// of a run, in one matmul, and again those that a layer of it changes; `apart`, each those that come to its own layer
    /// [default: apart].
    #[arg(long, value_enum, value_name = "HOW", conflicts_with_all = ["no_steps", "passes"])]
    pub skip_runs: Option<SkipRunsArg>,

    /// Largest number of tokens of one step, all sequences together; batches of more are cut into steps [default: the model's max_positions, 16 times as many with a pooled
    /// head].
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u32>,

    /// Print one stage on standard output: `model`, `graph`, `legal` or `plan`, the code of a CPU (`llvm`, or `clif` with
    /// `--cpu-backend cranelift`), or that of CUDA (`mlir`, `ptx`).
    #[arg(long, value_name = "STAGE")]
    pub emit: Option<String>,

    /// Write every stage to this folder, as numbered files.
    #[arg(long, value_name = "DIR")]
    pub dump_to: Option<PathBuf>,

    /// Also write a report of the artefact to this folder, as `skipc inspect --html` does.
    #[arg(id = "report_to", long = "report", value_name = "DIR", requires = "output")]
    pub report: Option<PathBuf>,

    /// Passes to run instead of the default list, in order; see `skipc passes`.
    #[arg(long, value_delimiter = ',', value_name = "P,…")]
    pub passes: Option<Vec<String>>,

    /// Verify the graph after every pass.
    #[arg(long)]
    pub verify_each: bool,

    /// Stop the passes after this many edits, to find a bad one by halving.
    #[arg(long, value_name = "N")]
    pub fuel: Option<u64>,

    /// Choose among the forms of kernels by the times in this file, which `skipc tune` wrote; kernels that are not in it
    /// are chosen by the cost model.
    #[arg(long, value_name = "TUNED.json")]
    pub tuning: Option<PathBuf>,

    /// Fail unless the artefact can promise this.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PROMISE")]
    pub require: Vec<Requirement>,

    /// Print how long each stage took, how much of the passes was spent on e-graphs, and the peak memory.
    #[arg(long)]
    pub timing: bool,
}

/// Names of promises on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Requirement {
    /// No step waits for the host: counts and lists of rows stay on the device.
    DeviceResident,
    /// No decision or value of a token depends on later tokens.
    Causal,
}

/// Arguments of `skipc eval`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("input").required(true).args(["text", "tokens"]))]
pub struct EvalArgs {
    /// The compiled model. Its machine code becomes part of this process: open only files that you trust as programs.
    #[arg(value_name = "M.skp")]
    pub model: PathBuf,

    /// Whose artefacts run.
    #[command(flatten)]
    pub trust: TrustArgs,

    /// Text to score, as one sequence.
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,

    /// Token ids to score, each row a sequence: int .npy, `[tokens]` or `[batch, tokens]`.
    #[arg(long, value_name = "T.npy")]
    pub tokens: Option<PathBuf>,

    /// How many tokens of each row count: int .npy, `[batch]`.
    #[arg(long, value_name = "L.npy", requires = "tokens", conflicts_with = "text")]
    pub lengths: Option<PathBuf>,

    /// The tokenizer.json of the model, or the folder that has it; beside the artefact by default. A model of 256 tokens needs
    /// none: they are bytes.
    #[arg(long, value_name = "FILE|DIR")]
    pub tokenizer: Option<PathBuf>,

    /// Tokens that run together: longer sequences are cut into such windows [default: as many as the artefact takes].
    #[arg(long, value_name = "W")]
    pub window: Option<u32>,

    /// Tokens from the beginning of a window to that of the next; the first window scores all its tokens, later ones their
    /// last S. Fewer: more tokens before each that is scored, and more work [default: half the window].
    #[arg(long, value_name = "S")]
    pub stride: Option<u32>,

    /// Where to run: cpu, cuda (the first NVIDIA GPU) or cuda:N (that of this ordinal).
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,

    /// Threads of the host [default: all cores].
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// Arguments of `skipc inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Artefact, of which only what is shown is read and checked; with `--cost`, `--dot` and `--html`, a model spec (TOML) or a
    /// directory as Hugging Face has them will do, with `--dot` also a graph (.sir).
    pub artifact: PathBuf,

    /// Show what the cost model predicts for each block and in total: multiply-adds, bytes, kernels and time against
    /// density, and from which density on the masked form would be no slower.
    #[arg(long, group = "estimate", conflicts_with_all = ["section", "rewrites", "buffers", "tokens"])]
    pub cost: bool,

    /// Show what the machine code of GPUs costs at least, loop by loop, and what its warps wait for: estimates from the
    /// disassembly, for comparing forms of a kernel without a GPU. Needs NVIDIA's nvdisasm, which the set-up script fetches.
    #[arg(long, group = "estimate", conflicts_with_all = ["section", "rewrites", "buffers", "tokens", "dot", "html"])]
    pub sass: bool,

    /// Densities of `--cost`: shares such as `0.125,0.5`, or a range such as `0.05..1`.
    #[arg(long, requires = "cost", value_name = "D")]
    pub density: Option<String>,

    /// What `--cost` is for: `cpu`, or a CUDA target, whose rates are published ones and not measured.
    #[arg(long, requires = "cost", default_value = "cpu")]
    pub target: String,

    /// Print a phase as a graph for Graphviz: `lowered`, the name of a pass, `legal`, or `plan`; `step/legal` is that of
    /// another function.
    #[arg(long, value_name = "PHASE", conflicts_with_all = ["cost", "section", "rewrites", "buffers", "tokens"])]
    pub dot: Option<String>,

    /// Write a report to this folder: pages that open from disk, with the model, the graph by phase, kernels with their code, memory,
    /// cost against density, rewrites with proofs, and where everything comes from.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["cost", "section", "rewrites", "buffers", "tokens", "dot"])]
    pub html: Option<PathBuf>,

    /// The file that the artefact was compiled with by `--tuning`, for the code of its kernels in the report: which form each has
    /// was decided by these times.
    #[arg(long, requires = "html", value_name = "TUNED.json")]
    pub tuning: Option<PathBuf>,

    /// End with exit code 4 unless this holds for what `--json` prints: `kernels <= 105`, `promises.device_resident`,
    /// `programs[target=cpu].steps < 300`. A list counts as its length. Can be given several times.
    #[arg(long, value_name = "EXPR")]
    pub assert: Vec<String>,

    /// Tokens of the step of `--cost` [default: 512], and rows around which `--sass` says how well tiles fill a GPU
    /// [default: 2048].
    #[arg(long, requires = "estimate", value_name = "N")]
    pub step_tokens: Option<u32>,

    /// Print one section as it is, such as `ir/score/legal.sir`; without a name, list them.
    #[arg(long, conflicts_with_all = ["rewrites", "buffers", "tokens"], value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    pub section: Option<String>,

    /// Also list every buffer: where it lies, how large it is, and which steps use it.
    #[arg(long)]
    pub buffers: bool,

    /// Print what rules rewrote, with the proof of every value that they made.
    #[arg(long, conflicts_with_all = ["buffers", "tokens"])]
    pub rewrites: bool,

    /// Also run these tokens on the host and show the executed share of every layer: int .npy, `[tokens]` or
    /// `[batch, tokens]`. This alone executes machine code of the artefact: open only files that you trust as programs.
    #[arg(long, value_name = "T.npy")]
    pub tokens: Option<PathBuf>,

    /// Run nothing but what one of these public keys signed (`skipc sign`): the signature lies beside the artefact, in M.skp.sig.
    #[arg(long, requires = "tokens", value_name = "KEYS.pem")]
    pub trust: Option<PathBuf>,
}

/// Arguments of `skipc verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Artefact. Its machine code becomes part of this process: open only files that you trust as programs, or use `--no-run`.
    pub artifact: PathBuf,

    /// Whose artefacts run.
    #[command(flatten)]
    pub trust: TrustArgs,

    /// Call no machine code of the artefact: compare its graphs and kernels in the interpreters alone.
    #[arg(long, conflicts_with = "threads")]
    pub no_run: bool,

    /// Weights that the artefact was compiled with (safetensors, or a directory), so that its own constants are compared with
    /// them [default: constants are made anew from random weights of a fixed seed].
    #[arg(long, value_name = "W.safetensors|DIR")]
    pub weights: Option<PathBuf>,

    /// Of a directory.
    #[command(flatten)]
    pub checkpoint: CheckpointArgs,

    /// Token ids to run instead of drawn ones: int .npy, `[tokens]` or `[batch, tokens]`.
    #[arg(long, value_name = "T.npy", group = "sequences")]
    pub tokens: Option<PathBuf>,

    /// Rows of numbers, or patches, to run, for a model that takes these in place of token ids: float32 .npy, `[tokens,
    /// columns]` or `[batch, tokens, columns]`.
    #[arg(long, visible_alias = "patches", value_name = "X.npy", group = "sequences")]
    pub rows: Option<PathBuf>,

    /// How many tokens of each sequence count, where not all do: int .npy, `[batch]`.
    #[arg(long, value_name = "L.npy", requires = "sequences")]
    pub lengths: Option<PathBuf>,

    /// Decisions to force instead of the ladder's own: uint8 .npy, [routers, batch, tokens], or a routing trace.
    #[arg(long, value_name = "R", requires = "sequences")]
    pub routing: Option<PathBuf>,

    /// Where to write a reduced mismatch [default: skipc-mismatch-HASH].
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,

    /// Threads of the host [default: all cores].
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// Arguments of `skipc bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Artefact with a program for `cpu`, whose machine code becomes part of this process (open only what you trust as a
    /// program), model spec (TOML), or a directory as Hugging Face has them.
    pub model: PathBuf,

    /// Weights (safetensors) of a spec, or those that an artefact was compiled with [default: those of a directory, else
    /// random ones of a fixed seed].
    #[arg(long, value_name = "W.safetensors|DIR")]
    pub weights: Option<PathBuf>,

    /// Of a directory.
    #[command(flatten)]
    pub checkpoint: CheckpointArgs,

    /// Whose artefacts run.
    #[command(flatten)]
    pub trust: TrustArgs,

    /// Time steps of decoding instead of whole sequences: the model at each density and its dense sibling, the same spec
    /// without skips, beside the bytes that they touch and the bandwidth of this machine; then one slot with keys and values
    /// that wait beside none that do, and with weights of 8 bits beside bf16 if the layers are in that, of random weights.
    #[arg(long, conflicts_with_all = ["tokens", "forms"])]
    pub decode: bool,

    /// Time capacities instead: the model with groups of these many tokens, beside itself without capacities. Sizes such as
    /// `16,48`, or a range of powers of two such as `16..1024`.
    #[arg(long, value_name = "G", conflicts_with_all = ["decode", "density", "forms"])]
    pub group_size: Option<String>,

    /// Capacity factors of the groups [default: 1,1.25,2].
    #[arg(long, value_delimiter = ',', value_name = "F,…", allow_negative_numbers = true,
        conflicts_with_all = ["decode", "density", "forms"])]
    pub capacity_factor: Vec<f64>,

    /// Numbers of slots that are decoded together.
    #[arg(long, value_delimiter = ',', value_name = "B,…", default_value = "1,2,4,8,32", requires = "decode",
        value_parser = clap::value_parser!(u32).range(1..=1 << 12))]
    pub slots: Vec<u32>,

    /// Tokens of each slot before the first step that is timed.
    #[arg(long, value_name = "N", default_value_t = 128, requires = "decode",
        value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub behind: u32,

    /// Precision of the layers of a spec that is decoded: `cpu=f32` or `cpu=bf16`; an artefact has its own.
    #[arg(long, value_name = "KIND=TYPE", default_value = "cpu=f32", requires = "decode")]
    pub dtype: String,

    /// Shares of the tokens that every router is forced to execute; with `--decode`, of the routers that every token is
    /// forced to execute [default: 0.05,0.125,0.25,0.5,0.75,1; with `--decode`: 0.125,0.25,0.5,1].
    #[arg(long, value_delimiter = ',', value_name = "P,…")]
    pub density: Vec<f64>,

    /// Tokens of a step, in sequences of at most the model's longest [default: 512, or the most that the artefact takes].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub tokens: Option<u32>,

    /// Times that each form runs at each density, after a warm-up.
    #[arg(long, value_name = "R", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub rounds: u32,

    /// Threads of the host [default: all cores].
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,

    /// What generates code for a spec [default: llvm, or cranelift in a build without LLVM].
    #[arg(long, value_enum, value_name = "B", default_value_t = CpuBackendArg::default(), hide_default_value = true)]
    pub cpu_backend: CpuBackendArg,

    /// Forms to time: all are compared with each other, and with `fused` if it is one of them.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "F,…",
        default_value = "fused,unfused,masked"
    )]
    pub forms: Vec<VariantArg>,

    /// Where to run: cpu. Only the host can be timed: the harness in tests/device does it on a GPU.
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,

    /// Also draw time against density; with `--decode`, speed over the dense sibling.
    #[arg(long, value_name = "OUT.svg")]
    pub svg: Option<PathBuf>,

    /// Also write what `--json` prints to this file.
    #[arg(long, value_name = "OUT.json")]
    pub report: Option<PathBuf>,
}

/// Arguments of `skipc tune`.
#[derive(Debug, Args)]
pub struct TuneArgs {
    /// Model spec (TOML), or a directory as Hugging Face has them.
    pub spec: PathBuf,

    /// Weights (safetensors) [default: those of a directory, else random ones of a fixed seed].
    #[arg(long, value_name = "W.safetensors")]
    pub weights: Option<PathBuf>,

    /// Of a directory.
    #[command(flatten)]
    pub checkpoint: CheckpointArgs,

    /// What to measure: `cpu`, or a CUDA target of the GPU in this machine.
    #[arg(long, default_value = "cpu")]
    pub target: String,

    /// What generates code for `cpu` [default: llvm, or cranelift in a build without LLVM].
    #[arg(long, value_enum, value_name = "B", default_value_t = CpuBackendArg::default(), hide_default_value = true)]
    pub cpu_backend: CpuBackendArg,

    /// Times that each form runs at each number of rows; the shortest counts.
    #[arg(long, value_name = "R", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub rounds: u32,

    /// Where to write the measured times.
    #[arg(short, long, value_name = "OUT.json")]
    pub output: PathBuf,
}

/// Arguments of `skipc train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Model spec (TOML).
    pub spec: PathBuf,

    /// How to train (TOML): `[train]`, `[optimizer]`, `[schedule]`, `[data]`, `[init]` and `[distill]`. Paths in it are relative
    /// to it.
    #[arg(long, value_name = "TRAIN.toml")]
    pub config: PathBuf,

    /// Weights to begin with (safetensors) [default: drawn by the seed].
    #[arg(long, value_name = "W.safetensors", conflicts_with = "resume")]
    pub weights: Option<PathBuf>,

    /// Where checkpoints, the log and, at the end, `weights.safetensors` go.
    #[arg(short = 'o', long = "output", id = "folder", value_name = "DIR")]
    pub folder: PathBuf,

    /// Go on from the last checkpoint of the folder: the same bytes as if the run had not stopped.
    #[arg(long)]
    pub resume: bool,

    /// A key of the configuration that may have changed since the checkpoint, such as `train.steps`.
    #[arg(long, value_delimiter = ',', value_name = "KEY", requires = "resume")]
    pub r#override: Vec<String>,

    /// Steps from one checkpoint to the next [default: only at the end, and when the run is stopped].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub save_every: Option<u64>,

    /// Steps from one evaluation on the share that is held out to the next [default: only at the end].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub eval_every: Option<u64>,

    /// Write what the run was, as arrays: losses, order, decisions, first gradients, weights before and after.
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    pub record: Option<PathBuf>,

    /// Replay the decisions of such a record, `wanted.npy` and `gates.npy`.
    #[arg(id = "replay", long = "routing", value_name = "DIR", conflicts_with = "resume")]
    pub replay: Option<PathBuf>,

    /// Also draw the loss, and the rate of each router, over steps.
    #[arg(long, value_name = "OUT.svg")]
    pub svg: Option<PathBuf>,

    /// Also print how long each kernel of a step took.
    #[arg(long)]
    pub timing: bool,

    /// Where to train: `cpu`, by compiled code, or `interpreter`, the reference, which is much slower.
    #[arg(long, default_value = "cpu")]
    pub target: String,

    /// What compiles for the CPU: `cranelift` in milliseconds, `llvm` faster code.
    #[arg(long, value_enum, value_name = "B", default_value_t = CpuBackendArg::default(), hide_default_value = true)]
    pub cpu_backend: CpuBackendArg,

    /// Threads on the CPU [default: all that this process may run on, shared with the ranks that may run there, too]. No number
    /// depends on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
}

/// Arguments of `skipc opt`.
#[derive(Debug, Args)]
pub struct OptArgs {
    /// Graph (.sir).
    pub graph: PathBuf,

    /// Passes to run instead of the default list, in order; see `skipc passes`.
    #[arg(long, value_delimiter = ',', value_name = "P,…")]
    pub passes: Option<Vec<String>>,

    /// Where to write the graph instead of standard output.
    #[arg(short, long, value_name = "OUT.sir")]
    pub output: Option<PathBuf>,

    /// Print the graph after every pass.
    #[arg(long)]
    pub print_each: bool,

    /// Verify the graph after every pass.
    #[arg(long)]
    pub verify_each: bool,

    /// Stop after this many edits, to find a bad one by halving.
    #[arg(long, value_name = "N")]
    pub fuel: Option<u64>,

    /// Also print what each pass did.
    #[arg(long)]
    pub report: bool,

    /// Print how rules made this value of the result instead of the result: `%12` as printed without this, the name of
    /// an output, or `all`.
    #[arg(long, value_name = "VALUE")]
    pub explain: Option<String>,
}

/// The commands of `skipc trace`.
#[derive(Debug, Subcommand)]
pub enum TraceCommand {
    /// Run tokens and keep the decisions of the routers.
    Record(RecordArgs),
    /// Draw decisions with exact densities.
    Generate(GenerateArgs),
    /// Show where a trace comes from and what it executes.
    Show(ShowArgs),
}

/// Arguments of `skipc trace show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Routing trace.
    pub trace: PathBuf,

    /// Also write a page to this folder: the text by depth, a map of tokens and routers, who decides alike, how long skips last, and
    /// what capacities would lose, beside random decisions of the same densities. With `--json` these figures are printed.
    #[arg(long, value_name = "DIR")]
    pub html: Option<PathBuf>,

    /// The token ids that the trace was recorded from, for the text on the page: int .npy, `[tokens]` or `[batch, tokens]`.
    #[arg(long, value_name = "T.npy", requires = "html")]
    pub tokens: Option<PathBuf>,

    /// How many tokens of each row count: int .npy, `[batch]`.
    #[arg(long, value_name = "L.npy", requires = "tokens")]
    pub lengths: Option<PathBuf>,

    /// The tokenizer of the text on the page: a tokenizer.json, or the folder that has one [default: that of the model; bytes].
    #[arg(long, value_name = "FILE|DIR", requires = "tokens")]
    pub tokenizer: Option<PathBuf>,

    /// The artefact, model spec (TOML) or directory as Hugging Face has them, for the names of the routers on the page and for
    /// its tokenizer.
    #[arg(id = "of_model", long = "model", value_name = "M.skp|SPEC", requires = "html")]
    pub model: Option<PathBuf>,
}

/// Arguments of `skipc trace record`.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// Artefact. Its machine code becomes part of this process: open only files that you trust as programs.
    pub artifact: PathBuf,

    /// Whose artefacts run.
    #[command(flatten)]
    pub trust: TrustArgs,

    /// Token ids: int .npy, `[tokens]` or `[batch, tokens]`.
    #[arg(long, value_name = "T.npy", group = "sequences", required_unless_present = "rows")]
    pub tokens: Option<PathBuf>,

    /// Rows of numbers, or patches, for a model that takes these in place of token ids: float32 .npy, `[tokens, columns]` or
    /// `[batch, tokens, columns]`.
    #[arg(long, visible_alias = "patches", value_name = "X.npy", group = "sequences")]
    pub rows: Option<PathBuf>,

    /// How many tokens of each row count: int .npy, `[batch]`.
    #[arg(long, value_name = "L.npy")]
    pub lengths: Option<PathBuf>,

    /// Where to write the trace.
    #[arg(short, long, value_name = "X.trace")]
    pub output: PathBuf,

    /// Where to run: cpu, cuda (the first NVIDIA GPU) or cuda:N (that of this ordinal).
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,

    /// Threads of the host [default: all cores].
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// Arguments of `skipc trace generate`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("shape").required(true).args(["lengths", "tokens_per_row"]))]
#[command(group = ArgGroup::new("share").required(true).args(["density", "per_layer"]))]
pub struct GenerateArgs {
    /// Artefact, model spec (TOML), or a directory as Hugging Face has them.
    pub model: PathBuf,

    /// Where to write the trace.
    #[arg(short, long, value_name = "X.trace")]
    pub output: PathBuf,

    /// Length of each sequence.
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    pub lengths: Vec<u32>,

    /// Length of all sequences, of which there are `--rows`.
    #[arg(long, value_name = "N")]
    pub tokens_per_row: Option<u32>,

    /// How many sequences of `--tokens-per-row` tokens.
    #[arg(long, value_name = "B", default_value_t = 1, conflicts_with = "lengths",
        value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub rows: u32,

    /// Share of tokens that every router executes, hit exactly but for rounding.
    #[arg(long, value_name = "P")]
    pub density: Option<f64>,

    /// A share for each router that decides (routers that are constant are left out), in model order.
    #[arg(long, value_delimiter = ',', value_name = "P,…")]
    pub per_layer: Vec<f64>,

    /// How much the same tokens execute everywhere: a token's weight is rank^-S, with ranks shared by all routers; 0 makes all
    /// tokens equal and routers independent.
    #[arg(long, value_name = "S", default_value_t = 0.0, allow_negative_numbers = true)]
    pub skew: f64,

    /// Seed of the draw.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

impl Cli {
    /// The command line of this process, and the files that it names. Ends the process if it is wrong, or asks for help.
    pub fn from_command_line() -> (Cli, Files) {
        let command = Cli::command();
        let matches = command.clone().try_get_matches().unwrap_or_else(|error| refuse(&error));
        let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let files = Files::of(&command, &matches);
        (cli, files)
    }
}

/// Ends the process for a command line that is none, or that asks for help: with `--json` an error is JSON like any other.
fn refuse(error: &clap::Error) -> ! {
    if !error.use_stderr() || !std::env::args_os().any(|arg| arg == "--json") {
        error.exit();
    }
    let message = error.to_string();
    let message = message.strip_prefix("error: ").unwrap_or(&message).trim_end();
    let found: Diagnostics = Diagnostic::new("usage::arguments", message).into();
    let text = serde_json::to_string_pretty(&found).unwrap_or_default();
    let _ = writeln!(std::io::stdout(), "{text}");
    std::process::exit(i32::from(exit_code(ErrorKind::Request)))
}

/// Runs a command and returns what it prints at its end; what it prints before goes to `out`.
///
/// # Errors
/// What the user reads instead.
pub fn run(cli: &Cli, files: &Files, out: &mut dyn Write) -> Result<String, Error> {
    files.check()?;
    match &cli.command {
        Command::Check(args) => check::run(args, cli.json),
        Command::Init(args) => init::run(args, cli.json),
        Command::Compile(args) => compile::run(args, cli.json),
        Command::Run(args) => run::run(args, cli.json, out),
        Command::Generate(args) => generate::run(args, cli.json, out),
        Command::Serve(args) => serve::run(args, cli.json, out),
        Command::Eval(args) => eval::run(args, cli.json),
        Command::Inspect(args) => inspect::run(args, cli.json, out),
        Command::Diff(args) => diff::run(args, cli.json, out),
        Command::Sign(args) => sign::run(args, cli.json),
        Command::Verify(args) => verify::run(args, cli.json),
        Command::Bench(args) => bench::run(args, cli.json),
        Command::Profile(args) => profile::run(args, cli.json),
        Command::Tune(args) => tune::run(args, cli.json),
        Command::Train(args) => train::run(args, cli.json),
        Command::Explain(args) => explain::run(args, cli.json),
        Command::Opt(args) => opt::run(args, cli.json),
        Command::Trace(command) => trace::run(command, cli.json),
        Command::Doctor => doctor::run(cli.json),
        Command::Targets => list::targets(cli.json),
        Command::Passes => list::passes(cli.json),
        Command::Rules => list::rules(cli.json),
        Command::Ops => list::ops(cli.json),
        Command::Completions { shell } => manual::completions(*shell, cli.json),
        Command::Man { dir } => manual::man(dir, cli.json),
    }
}

fn to_json(value: &impl Serialize) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(value).map_err(|error| {
        Error::new(ErrorKind::Internal, Diagnostic::new("json::write", error.to_string()))
    })?;
    Ok(text + "\n")
}

/// An artefact whose texts are read when they are asked for.
fn open_index(path: &Path) -> Result<Index, Error> {
    Index::open(path).map_err(|error| match error {
        skipc_artifact::Error::Io { source, .. } => Error::io(path, &source),
        error => Error::in_artifact(path, &error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown_paths(command: &clap::Command) -> Vec<String> {
        let own = command.get_arguments().filter_map(|arg| skipc_runtime::command::file_use(arg).err());
        own.chain(command.get_subcommands().flat_map(unknown_paths)).collect()
    }

    #[test]
    fn every_path_is_known_to_be_read_or_written() {
        assert_eq!(unknown_paths(&Cli::command()), [""; 0]);
        let extra = clap::Arg::new("extra").value_parser(clap::value_parser!(PathBuf));
        assert_eq!(unknown_paths(&Cli::command().arg(extra)), ["extra"]);
    }
}
