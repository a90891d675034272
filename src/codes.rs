//! Every error code of skipc with what it means: those of this crate, and the tables of the others.

/// Codes of pipeline and commands, sorted by code. Spec, weights and lints have tables of their own.
const CODES: &[(&str, &str)] = &[
    ("artifact::pack", "The artefact could not be put together. This is a fault of the compiler."),
    (
        "artifact::rewrites",
        "The record of what rules rewrote cannot be read: another version of skipc wrote it. Compile the model again.",
    ),
    ("artifact::spec", "The spec in the artefact is not text. Compile the model again."),
    (
        "assert::failed",
        "What `skipc inspect --assert` asks for does not hold; the message says what there is instead. The exit code is 4.",
    ),
    (
        "bench::cuda",
        "`skipc bench` times host code only; programs for CUDA are timed by the harness in tests/device.",
    ),
    (
        "bench::mismatch",
        "Two forms of the model that were to be timed give different results, so their times say nothing. This is a fault of the compiler: please report it with the model.",
    ),
    (
        "bench::no_capacity",
        "No router of the model takes a capacity, so that `skipc bench --group-size` has nothing to set.",
    ),
    (
        "bench::no_cpu_program",
        "The artefact has no program for `cpu`, so there is nothing to time on the host.",
    ),
    (
        "bench::no_steps",
        "`skipc bench --decode` times steps of generation, and the model's decisions depend on later tokens.",
    ),
    (
        "bench::nothing_to_skip",
        "No router of the model decides anything, so all densities would be the same run.",
    ),
    (
        "bench::plan",
        "The plan in the artefact, which says what a step moves, cannot be read. Compile the model again.",
    ),
    ("bench::plot", "The plot could not be drawn. This is a fault of the compiler."),
    (
        "bench::positions",
        "The steps that were to be timed come after more tokens than the model has positions.",
    ),
    ("codegen::internal", "A code generator broke a rule of its own. This is a fault of the compiler."),
    (
        "constants::size",
        "A constant has another size than its weights give. This is a fault of the compiler.",
    ),
    (
        "diff::worse",
        "Between the two sides of `skipc diff` a figure of memory, predicted cost or size of code grew by more than `--fail-over` allows. The exit code is 4.",
    ),
    ("eval::nothing", "No sequence has two tokens, so that there is none with one before it to score."),
    (
        "internal::panic",
        "The compiler stopped where it must not. This is a fault of the compiler: please report it with your input.",
    ),
    ("internal::reproducer", "Says where the files are that it takes to see a fault of the compiler again."),
    ("io::dump", "A stage could not be written to the folder of `--dump-to`."),
    ("io::file", "A file cannot be read or written; the operating system's reason is in the message."),
    ("json::write", "A result could not be written as JSON. This is a fault of the compiler."),
    ("link::nothing", "A code generator made no code. This is a fault of the compiler."),
    ("link::object", "Generated host code cannot be laid out. This is a fault of the compiler."),
    (
        "lower::broken",
        "Lowering made a graph that is not right. This is a fault of the compiler: please report it with the spec.",
    ),
    ("plan::broken", "A plan contradicts itself. This is a fault of the compiler."),
    (
        "plan::refused",
        "The graph is well-formed, and has something in it that no kernel does, such as a size beyond the limits of kernels.",
    ),
    (
        "report::section",
        "A section of the artefact cannot be read: another version of skipc wrote it. Compile the model again.",
    ),
    ("report::spec", "The resolved spec does not read back as TOML. This is a fault of the compiler."),
    (
        "require::causal",
        "`--require causal`: some decision of the model depends on later tokens. `skipc check` says which.",
    ),
    (
        "require::device_resident",
        "`--require device-resident`: some step would wait for the host to bring a count. This is a fault of the compiler.",
    ),
    (
        "serve::address",
        "The server cannot listen where it was asked to: another program has the port, or the machine does not have the address. Port 0 takes a free one.",
    ),
    ("serve::api_keys", "The file of `--api-key-file` has no key. Write one a line."),
    (
        "serve::engine",
        "The server stopped where it must not. This is a fault of the runtime: please report it.",
    ),
    ("sign::random", "The system gives no random numbers, and without them there is no new key."),
    (
        "target::cranelift",
        "The code generator for the host could not be set up. This is a fault of the compiler.",
    ),
    (
        "target::host",
        "Host code is made for the machine that compiles, and this one is of a kind for which there is no code generator.",
    ),
    (
        "target::not_built",
        "This build of skipc has no code generator for the target; the message says how to build one that has.",
    ),
    (
        "target::tool",
        "A tool outside skipc that the target needs, such as NVIDIA's assembler, is missing or failed; see `skipc doctor`.",
    ),
    (
        "target::unsupported",
        "The target cannot do what the model or the options ask for, such as a precision.",
    ),
    ("trace::empty", "The artefact has no program that decisions could be generated for."),
    ("trace::tokenizer", "A trace has tokens that the tokenizer of `skipc trace show` does not know."),
    (
        "trace::tokens",
        "The tokens of `skipc trace show --tokens` are not those of the run that was recorded, by their hash, or not as many as the trace has decisions about.",
    ),
    (
        "tuning::operands",
        "`skipc tune` has no operands for a kernel with several forms. This is a fault of the compiler.",
    ),
    ("tuning::other", "The file of `skipc inspect --tuning` is not what the artefact was compiled with."),
    (
        "tuning::parse",
        "The file of `--tuning` is not what `skipc tune` writes; line and column are in the message.",
    ),
    ("tuning::table", "The times of a kernel in the file of `--tuning` are not whole."),
    ("tuning::target", "The file of `--tuning` was measured for another target than those compiled for."),
    ("tuning::version", "The file of `--tuning` was written by another version of skipc."),
    (
        "usage::arguments",
        "The command line is none: an option or a command that does not exist, lacks its value, or cannot stand beside another.",
    ),
    (
        "usage::assert",
        "`skipc inspect --assert` was given something that is not a comparison, or the name of an unknown value.",
    ),
    ("usage::bench", "An option of `skipc bench` has a value that it does not take."),
    ("usage::compile", "An option of `skipc compile` has a value that it does not take."),
    ("usage::deny", "`--deny` names a lint that does not exist."),
    (
        "usage::diff",
        "An option of `skipc diff` has a value that it does not take, or its two sides are not of a kind.",
    ),
    ("usage::directory", "An option is for directories as Hugging Face has them, and what is given is none."),
    ("usage::emit", "`--emit` names a stage that this compile does not have."),
    ("usage::eval", "An option of `skipc eval` has a value that it does not take."),
    ("usage::explain", "`skipc explain` was asked for a code that does not exist; without one it lists all."),
    ("usage::init", "An option of `skipc init` has a value that it does not take."),
    ("usage::inspect", "An option of `skipc inspect` has a value that it does not take."),
    ("usage::profile", "An option of `skipc profile` has a value that it does not take."),
    ("usage::sign", "`skipc sign` takes an artefact and `--key`, or `--new-key` alone."),
    ("usage::train", "An option of `skipc train` has a value that it does not take."),
    ("usage::tune", "An option of `skipc tune` has a value that it does not take."),
    ("usage::value", "`skipc opt --explain` names a value that the graph after the passes does not have."),
    ("verify::empty", "The artefact has no program that could be verified."),
    (
        "verify::mismatch",
        "Two forms of the model give results that differ by more than rounding may. This is a fault of the compiler: please report it with the artefact.",
    ),
    (
        "verify::nothing_compared",
        "There are no tokens, so no two forms of the model could be compared: that says nothing about the model. Give `--tokens` with at least one token, or compile with a `--max-tokens` of at least 1.",
    ),
    ("verify::stage", "A form of the model could not be run, so it could not be compared."),
    (
        "weights::other",
        "The artefact was compiled with other weights than those of `--weights`: names, types, shapes or elements differ. Give the weights of the compile, or none, so that random ones are taken.",
    ),
    (
        "weights::overflow",
        "Every tensor is finite, but with them the logits leave the range of f32, so that no output would be a number. Look for a gain or a matrix of enormous size: a diverged training run, or a conversion that went wrong.",
    ),
];

/// Code and explanation of everything that skipc and skipc-run can report, sorted by code.
pub fn all() -> Vec<(&'static str, &'static str)> {
    let tables = [
        CODES,
        crate::frontend::huggingface::codes::CODES,
        crate::frontend::lint::CODES,
        crate::frontend::spec::codes::CODES,
        crate::train::codes::CODES,
        skipc_artifact::codes::CODES,
        skipc_ir::codes::CODES,
        skipc_passes::CODES,
        skipc_runtime::codes::CODES,
        skipc_sass::codes::CODES,
    ];
    let mut all = tables.concat();
    all.sort_unstable();
    all
}
