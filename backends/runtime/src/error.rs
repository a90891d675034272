//! What can go wrong between a file and its logits, each with a stable code.

use std::path::PathBuf;

use skipc_artifact::target::Target;

use crate::kind::Kind;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The artefact is not sound.
    #[error(transparent)]
    Artifact(#[from] skipc_artifact::Error),
    /// A file could not be read. The user's path, or the file system's fault.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The second file, which has the constants of an artefact, could not be read.
    #[error(
        "the constants of the artefact lie in a second file, and {path} cannot be read: {source}; put it beside the artefact, \
         or say where it is by `--external-weights`",
        path = path.display()
    )]
    NoExternal {
        /// Where it was looked for.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is larger than anything this program makes.
    #[error("{path} has {size} bytes, over the limit of {limit}", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The largest size that is read.
        limit: u64,
    },
    /// A `.npy` file that is malformed or cut short.
    #[error("invalid .npy file {path}: {reason}", path = path.display())]
    NpyFormat {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A `.npy` file with elements of another type.
    #[error("{path} has elements of type {found}, expected {expected}", path = path.display())]
    NpyDtype {
        /// The file.
        path: PathBuf,
        /// Its element type.
        found: String,
        /// Which types are read.
        expected: &'static str,
    },
    /// An array that is stored column by column.
    #[error("{} is stored column by column; save `np.ascontiguousarray(a)`", path.display())]
    NpyOrder {
        /// The file.
        path: PathBuf,
    },
    /// A `.npy` file of another shape.
    #[error("{path} has shape {found:?}, expected {expected}", path = path.display())]
    NpyShape {
        /// The file.
        path: PathBuf,
        /// Its shape.
        found: Vec<u64>,
        /// The shape in words.
        expected: String,
    },
    /// A `.npy` file with a number that makes no sense there.
    #[error("{path} has the value {found} at {at}, expected {expected}", path = path.display())]
    NpyValue {
        /// The file.
        path: PathBuf,
        /// The number.
        found: i128,
        /// Its index in memory order.
        at: usize,
        /// The range in words.
        expected: String,
    },
    /// A routing trace that is malformed or cut short.
    #[error("invalid routing trace {path}: {reason}", path = path.display())]
    TraceFormat {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A routing trace of another version.
    #[error("{path} is a routing trace of version {found}; this program reads version {expected}",
        path = path.display(), expected = crate::trace::format::FORMAT)]
    TraceVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A routing trace of another model.
    #[error("{path} is a routing trace of {found}, the artefact is {expected}", path = path.display())]
    TraceModel {
        /// The file.
        path: PathBuf,
        /// The trace's model, in words.
        found: String,
        /// The artefact's.
        expected: String,
    },
    /// A routing trace with decisions of another number of routers.
    #[error("{path} has decisions of {found} routers, the model has {expected}", path = path.display())]
    TraceRouters {
        /// The file.
        path: PathBuf,
        /// The trace's routers.
        found: usize,
        /// The model's.
        expected: usize,
    },
    /// A routing trace with choices of other layers of experts, or with none.
    #[error("{path} has {found}, the model has {expected}", path = path.display())]
    TraceExperts {
        /// The file.
        path: PathBuf,
        /// The trace's layers, in words.
        found: String,
        /// The model's.
        expected: String,
    },
    /// A routing trace of sequences of other lengths.
    #[error("{path} is a routing trace of sequences of length {found}; the batch has {expected}", path = path.display())]
    TraceLengths {
        /// The file.
        path: PathBuf,
        /// The trace's lengths, in words.
        found: String,
        /// The batch's.
        expected: String,
    },
    /// Decisions in a file that is neither a routing trace nor a `.npy` file.
    #[error("{path} is neither a routing trace nor a .npy file", path = path.display())]
    RoutingFormat {
        /// The file.
        path: PathBuf,
    },
    /// Decisions that cannot be generated. A fault of the user's options.
    #[error("no routing trace can be generated: {reason}")]
    Recipe {
        /// What does not fit.
        reason: String,
    },
    /// The artefact has no code for what the user asked for.
    #[error("the artefact has no program for {wanted}; it has {has}. Compile with `--target {wanted}`")]
    NoProgram {
        /// The target asked for.
        wanted: String,
        /// Those that are there.
        has: String,
    },
    /// The program has no function of this name. A fault of the caller.
    #[error("the program has no function `{wanted}`; it has {has}")]
    NoFunction {
        /// The name.
        wanted: String,
        /// Names of those that are there.
        has: String,
    },
    /// An input or result of a call that the function does not have, or not so. A fault of the caller.
    #[error("`{role}`: {reason}")]
    Port {
        /// What it was meant to be.
        role: String,
        /// What is wrong.
        reason: String,
    },
    /// Host code for other processors only.
    #[error("the artefact's host code is for {found}; this process runs on {host}")]
    WrongArch {
        /// Architectures and levels of the code.
        found: String,
        /// The machine's.
        host: String,
    },
    /// More tokens at once than the program was compiled for.
    #[error("{found} tokens at once, the program takes {limit}; compile with a larger `--max-tokens`")]
    TooManyTokens {
        /// Tokens of the batch.
        found: u64,
        /// Most that the program takes.
        limit: u32,
    },
    /// A sequence of more tokens than a step takes, which is scored in one.
    #[error(
        "sequence {sequence} has {found} tokens, a step takes {limit}, and a sequence is scored in one step; compile with \
         a larger `--max-tokens`"
    )]
    LongSequence {
        /// Index of the sequence in the batch.
        sequence: usize,
        /// Its tokens.
        found: u64,
        /// Most that the program takes.
        limit: u32,
    },
    /// More tokens than a step takes in a batch that cannot be cut.
    #[error(
        "the batch has {found} tokens, a step takes {limit}, and a router of this model ranks the tokens of all sequences of \
         a batch, which is not cut for that; give fewer sequences, or compile with a larger `--max-tokens`"
    )]
    WholeBatch {
        /// Tokens of the batch.
        found: u64,
        /// Most that the program takes.
        limit: u32,
    },
    /// A sequence longer than the model has positions.
    #[error("sequence {sequence} has {found} tokens, the model has {limit} positions")]
    SequenceTooLong {
        /// Index of the sequence.
        sequence: usize,
        /// Its length.
        found: u64,
        /// Positions of the model.
        limit: u32,
    },
    /// A token that the model does not know.
    #[error("token {found} at index {at}: the vocabulary has {vocab_size}")]
    TokenRange {
        /// The token id.
        found: u32,
        /// Its index in the flat batch.
        at: usize,
        /// Ids are below this.
        vocab_size: u32,
    },
    /// Scores are asked for of a model without a head.
    #[error("this model gives rows of its stream, not scores over a vocabulary, so it cannot {what}")]
    NoHead {
        /// What it was to do.
        what: &'static str,
    },
    /// Choices of a model that has none.
    #[error("this model has no layers of experts, whose choices could be written or replayed")]
    NoExperts,
    /// Rows of numbers for a model that takes token ids.
    #[error("this model takes token ids, not rows of numbers")]
    TakesTokens,
    /// Token ids, or rows of another width, for a model that takes rows of numbers.
    #[error(
        "this model takes rows of {cols} numbers in place of token ids: f32 `[tokens, {cols}]` or `[batch, tokens, {cols}]`"
    )]
    TakesRows {
        /// Columns of the rows.
        cols: u32,
    },
    /// A number of a row that is not finite.
    #[error("the rows hold {value} in row {row}, column {col}", row = at / *cols as usize, col = at % *cols as usize)]
    RowValue {
        /// The number.
        value: f32,
        /// Its index in the flat batch.
        at: usize,
        /// Columns of the rows.
        cols: u32,
    },
    /// Lengths, tokens and decisions that do not belong together. A fault of the caller.
    #[error("{what}: {found}, expected {expected}")]
    BatchShape {
        /// What does not fit.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there must be.
        expected: usize,
    },
    /// Text for a model whose tokens are not bytes, and no tokenizer.
    #[error(
        "text needs a tokenizer, or a model of bytes (256 tokens); this one has {vocab_size}: use `--tokenizer`, or give \
         token ids (`--tokens`)"
    )]
    PromptVocabulary {
        /// Tokens of the model.
        vocab_size: u32,
    },
    /// A tokenizer, or a file beside it, that cannot be used.
    #[error("the tokenizer of {path} cannot be used: {reason}", path = path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Messages of a chat that cannot be made a prompt. The template, or messages that it does not take.
    #[error("the chat template cannot be applied: {reason}")]
    ChatTemplate {
        /// What is wrong.
        reason: String,
    },
    /// A chat with a model that has no template for it.
    #[error(
        "the model has no chat template: put its `tokenizer_config.json` beside the artefact, or name one by `--chat-template`"
    )]
    NoChatTemplate,
    /// Logits that are no numbers. The weights are at fault, or tokens for which they overflow.
    #[error("the logits of token {position} of sequence {sequence} are not finite: one is {value}")]
    NonFinite {
        /// Index of the sequence.
        sequence: usize,
        /// Index of the token in it.
        position: usize,
        /// The first that is not finite.
        value: f32,
    },
    /// Options that exclude or need each other.
    #[error("{0}")]
    Usage(String),
    /// An output that is also an input or another output.
    #[error("{option} and {other} are one file, {path}", path = path.display())]
    SameFile {
        /// The option that names the output.
        option: String,
        /// The other one.
        other: String,
        /// The file.
        path: PathBuf,
    },
    /// The known answers of the artefact are missing or damaged.
    #[error("known answers: {problem}")]
    KnownAnswer {
        /// What is wrong.
        problem: String,
    },
    /// This machine computes something else than the known answers.
    #[error("{failed} of {of} known answers came out wrong on this machine")]
    SelfTest {
        /// Cases that differ.
        failed: usize,
        /// Cases that ran.
        of: usize,
    },
    /// Generation with a model that looks ahead.
    #[error(
        "this model's decisions depend on later tokens, so it cannot generate text (lint::future_leak): `skipc check` shows \
         which, and what to write instead"
    )]
    NotCausal,
    /// A slot of a decoder that is not in the state that a call needs. A fault of the caller.
    #[error("slot {slot}: {reason}")]
    Slot {
        /// Its number.
        slot: u32,
        /// What is wrong.
        reason: &'static str,
    },
    /// A sequence that the memory for what is kept of tokens cannot hold, even alone.
    #[error("no memory is left for sequence {sequence} of {tokens} tokens, even alone")]
    CacheFull {
        /// Number of the sequence.
        sequence: u32,
        /// Its tokens.
        tokens: usize,
    },
    /// More memory for what is kept of tokens than the machine has left. Found before any of it is taken.
    #[error(
        "caches for {tokens} tokens take {} MiB, and {} MiB are available; use fewer slots or `--cache-tokens`",
        bytes >> 20,
        available >> 20
    )]
    CacheMemory {
        /// Tokens that there was to be room for.
        tokens: u32,
        /// What they take.
        bytes: u64,
        /// What there is.
        available: u64,
    },
    /// Nothing to continue from.
    #[error("generation needs at least one token to begin with")]
    EmptyPrompt,
    /// Replayed decisions that contradict a router that cannot decide otherwise, or each other.
    #[error("replayed decisions of router {router} differ from {with} at token {at}")]
    RoutingConflict {
        /// Index of the router.
        router: usize,
        /// What they differ from.
        with: String,
        /// Index of the token in the flat batch.
        at: usize,
    },
    /// Replayed choices of experts that a token cannot have.
    #[error("replayed choices of layer {layer} of experts at token {at}: {reason}")]
    ExpertsConflict {
        /// Index of the layer, in the order in which they run.
        layer: usize,
        /// Index of the token in the flat batch.
        at: usize,
        /// Why not.
        reason: String,
    },
    /// A kernel wrote where it had no business to. Only checked runs find this. A fault of the compiler.
    #[error("kernel `{kernel}` of {origin} wrote outside its buffers, at byte {at} of {memory}")]
    StrayWrite {
        /// The kernel's symbol.
        kernel: String,
        /// Where the step comes from in the model.
        origin: String,
        /// Which memory: the arena or the states.
        memory: &'static str,
        /// Offset into it, negative before it.
        at: i64,
    },
    /// The host has no memory for the arena.
    #[error("cannot get {bytes} bytes of memory for {what}: {source}")]
    Memory {
        /// What it was for.
        what: &'static str,
        /// How many bytes.
        bytes: u64,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Threads could not be started.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// How many.
        threads: usize,
        /// What the operating system said.
        reason: String,
    },
    /// The GPU or its driver.
    #[error(transparent)]
    Cuda(#[from] crate::cuda::fault::CudaError),
}

impl Error {
    /// The stable name of the error, for `skipc explain` and for scripts.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Error::Artifact(error) => error.code(),
            Error::Io { .. } => "run::io",
            Error::NoExternal { .. } => "run::no-external-weights",
            Error::TooLarge { .. } => "run::too-large",
            Error::NpyFormat { .. } => "npy::format",
            Error::NpyDtype { .. } => "npy::dtype",
            Error::NpyShape { .. } | Error::NpyOrder { .. } => "npy::shape",
            Error::NpyValue { .. } => "npy::value",
            Error::TraceFormat { .. } => "trace::format",
            Error::TraceVersion { .. } => "trace::version",
            Error::TraceModel { .. } => "trace::model",
            Error::TraceRouters { .. } => "trace::routers",
            Error::TraceExperts { .. } => "trace::experts",
            Error::TraceLengths { .. } => "trace::lengths",
            Error::RoutingFormat { .. } => "run::routing-format",
            Error::Recipe { .. } => "trace::recipe",
            Error::NoProgram { .. } => "run::no-program",
            Error::NoFunction { .. } => "run::no-function",
            Error::Port { .. } => "run::port",
            Error::WrongArch { .. } => "run::wrong-arch",
            Error::TooManyTokens { .. } => "run::too-many-tokens",
            Error::LongSequence { .. } => "run::long-sequence",
            Error::WholeBatch { .. } => "run::whole-batch",
            Error::SequenceTooLong { .. } => "run::sequence-too-long",
            Error::TokenRange { .. } => "run::token-range",
            Error::NoExperts => "run::no-experts",
            Error::NoHead { .. } => "run::no-head",
            Error::TakesTokens | Error::TakesRows { .. } => "run::input",
            Error::RowValue { .. } => "run::row-value",
            Error::BatchShape { .. } => "run::batch-shape",
            Error::PromptVocabulary { .. } => "run::prompt-vocabulary",
            Error::Tokenizer { .. } => "run::tokenizer",
            Error::ChatTemplate { .. } => "run::chat-template",
            Error::NoChatTemplate => "run::no-chat-template",
            Error::NonFinite { .. } => "run::non-finite",
            Error::Usage(_) => "run::usage",
            Error::SameFile { .. } => "run::same-file",
            Error::KnownAnswer { .. } => "run::known-answer",
            Error::SelfTest { .. } => "run::self-test",
            Error::NotCausal => "run::not-causal",
            Error::Slot { .. } => "run::slot",
            Error::CacheFull { .. } => "run::cache-full",
            Error::CacheMemory { .. } => "run::cache-memory",
            Error::EmptyPrompt => "run::empty-prompt",
            Error::RoutingConflict { .. } => "run::routing-conflict",
            Error::ExpertsConflict { .. } => "run::experts-conflict",
            Error::StrayWrite { .. } => "run::stray-write",
            Error::Memory { .. } => "run::memory",
            Error::Threads { .. } => "run::threads",
            Error::Cuda(error) => error.code(),
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Error::Usage(_) | Error::SameFile { .. } | Error::Recipe { .. } => Kind::Request,
            Error::SelfTest { .. } => Kind::Mismatch,
            Error::NoProgram { .. } | Error::WrongArch { .. } => Kind::Unsupported,
            Error::Cuda(error) => error.kind(),
            Error::Slot { .. } | Error::StrayWrite { .. } => Kind::Internal,
            Error::Artifact(_)
            | Error::Io { .. }
            | Error::NoExternal { .. }
            | Error::TooLarge { .. }
            | Error::NpyFormat { .. }
            | Error::NpyDtype { .. }
            | Error::NpyOrder { .. }
            | Error::NpyShape { .. }
            | Error::NpyValue { .. }
            | Error::TraceFormat { .. }
            | Error::TraceVersion { .. }
            | Error::TraceModel { .. }
            | Error::TraceRouters { .. }
            | Error::TraceExperts { .. }
            | Error::TraceLengths { .. }
            | Error::RoutingFormat { .. }
            | Error::RoutingConflict { .. }
            | Error::ExpertsConflict { .. }
            | Error::NoFunction { .. }
            | Error::Port { .. }
            | Error::TooManyTokens { .. }
            | Error::LongSequence { .. }
            | Error::WholeBatch { .. }
            | Error::SequenceTooLong { .. }
            | Error::TokenRange { .. }
            | Error::NoHead { .. }
            | Error::NoExperts
            | Error::TakesTokens
            | Error::TakesRows { .. }
            | Error::RowValue { .. }
            | Error::BatchShape { .. }
            | Error::PromptVocabulary { .. }
            | Error::Tokenizer { .. }
            | Error::ChatTemplate { .. }
            | Error::NoChatTemplate
            | Error::NonFinite { .. }
            | Error::KnownAnswer { .. }
            | Error::NotCausal
            | Error::CacheFull { .. }
            | Error::CacheMemory { .. }
            | Error::EmptyPrompt
            | Error::Memory { .. }
            | Error::Threads { .. } => Kind::Input,
        }
    }
}

/// The targets in words, for [`Error::NoProgram`].
pub(crate) fn list_targets(targets: &[Target]) -> String {
    let names: Vec<_> = targets.iter().map(ToString::to_string).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
