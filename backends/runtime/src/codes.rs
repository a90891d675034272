//! Every error code of this crate with what it means, for `skipc explain`. Damaged artefacts have those of
//! `skipc_artifact::codes`.

/// Code and explanation, sorted by code.
pub const CODES: &[(&str, &str)] = &[
    (
        "cuda::call",
        "A call of the NVIDIA driver failed in a way that has no code of its own; its name and answer are in the message.",
    ),
    ("cuda::code", "The driver refused to load the code of the artefact. This is a fault of the compiler."),
    ("cuda::driver_too_old", "The code needs a newer NVIDIA driver than this machine has."),
    ("cuda::internal", "The runtime broke a rule of its own. Please report it."),
    (
        "cuda::no_code",
        "No code in the artefact runs on this GPU. Compile with its target; `skipc doctor` names it.",
    ),
    (
        "cuda::no_device",
        "There is an NVIDIA driver but no GPU that this process may use, or the driver does not answer.",
    ),
    (
        "cuda::no_driver",
        "There is no NVIDIA driver on this machine. `--device cpu` runs on the host, if the artefact has code for it.",
    ),
    (
        "cuda::oom",
        "The memory of the GPU does not suffice. Use fewer tokens at once, or compile with a smaller `--max-tokens`.",
    ),
    (
        "cuda::sticky",
        "A kernel did something that ends the use of the GPU by this process, such as a read outside its memory. This is a fault of the compiler.",
    ),
    (
        "memory::exhausted",
        "The system has no memory left for this process, or a limit such as `ulimit -v` forbids more. A smaller model, batch or number of threads needs less.",
    ),
    ("npy::dtype", "The elements of a .npy file are of a type that is not read here."),
    ("npy::format", "An invalid .npy file, or one that is cut short."),
    ("npy::shape", "A .npy file has another shape than its use wants."),
    ("npy::value", "A .npy file has a number that makes no sense there, such as a negative token."),
    ("run::batch-shape", "Lengths, tokens and decisions of a batch do not belong together."),
    (
        "run::cache-full",
        "Keys and values of one sequence alone do not fit into the memory that was set aside for all of them. Set more aside, or generate fewer tokens.",
    ),
    (
        "run::cache-memory",
        "Memory for keys and values of all slots is taken once, at the start, and the machine does not have so much left. Ask for fewer slots or, by `--cache-tokens`, for fewer tokens of all of them together.",
    ),
    (
        "run::chat-template",
        "The template that makes a prompt of a chat is malformed, uses something that is not known here, or refuses these messages; the message says what it said.",
    ),
    ("run::empty-prompt", "Generation continues a text; there has to be at least one token of it."),
    (
        "run::experts-conflict",
        "Replayed choices of experts give a token more than it can have (`top_k`, or all where experts choose), or anything else than what a hash of the token's id chooses in a layer that has one. Fewer are fine where routers choose: what is missing counts 0.",
    ),
    (
        "run::input",
        "A model takes either token ids (`input = \"tokens\"` in its spec) or rows of numbers in their place (`\"rows\"`), as wide as the model.",
    ),
    ("run::io", "A file cannot be read or written; the operating system's reason is in the message."),
    (
        "run::known-answer",
        "The artefact has no known answers for the program, or they are damaged. Compile the model again.",
    ),
    (
        "run::long-sequence",
        "A sequence has more tokens than a step of the program takes. Batches are cut into steps between sequences, and a sequence is scored in one. Compile with a larger `--max-tokens`; `skipc generate` and `skipc eval` take it as it is.",
    ),
    ("run::memory", "The host has no memory for the model. Compile with a smaller `--max-tokens`."),
    (
        "run::no-chat-template",
        "Chats are made prompts by a template that belongs to the model: `chat_template` in its tokenizer_config.json, or the file chat_template.jinja. Put it beside the artefact or the tokenizer, or name it by `--chat-template`. A model that was not trained on chats has none.",
    ),
    (
        "run::no-experts",
        "`--experts` replays and `--experts-out` writes which choices tokens got in layers of experts (`kind = \"experts\"`), and the model has no such layer. Decisions of routers are written by `--routing-out`.",
    ),
    (
        "run::no-external-weights",
        "The artefact was compiled with `--external-weights`, so that its constants lie in a second file, which is not where it should be: beside the artefact, under the name that it was written with, or where `--external-weights` says.",
    ),
    (
        "run::no-function",
        "The program has no function of the name that was asked for; the message says which it has.",
    ),
    (
        "run::no-head",
        "A model without a head (`head = \"rows\"`) gives the rows of its stream. Texts are continued, and their loss is measured, by scores over a vocabulary.",
    ),
    (
        "run::no-program",
        "The artefact has no code for the device that was asked for. Compile with its target.",
    ),
    (
        "run::non-finite",
        "A logit is infinite or not a number, so the run ends with exit code 1. The files that were asked for are written before, to look into; generation stops at the token. Sums of the model leave the range of f32: check the weights, or whether they are of this model.",
    ),
    (
        "run::not-causal",
        "A decision of this model depends on later tokens, which do not exist while text is generated. See `lint::future_leak`.",
    ),
    (
        "run::port",
        "An input or a result of a call is not one of the function, is missing, or has another size.",
    ),
    (
        "run::prompt-vocabulary",
        "Without a tokenizer the bytes of a text are its tokens, which only a model of 256 tokens knows. Name its tokenizer.json by `--tokenizer`, or give token ids by `--tokens`.",
    ),
    (
        "run::routing-conflict",
        "Replayed decisions contradict a router that cannot decide otherwise, or two routers that share their decision.",
    ),
    (
        "run::routing-format",
        "A file that should hold decisions is neither a routing trace nor a .npy file, whatever it is called.",
    ),
    (
        "run::row-value",
        "The rows that a model takes in place of token ids hold a number that is infinite or not a number; the message says where.",
    ),
    (
        "run::same-file",
        "An output is also an input or another output, directly or through links, and would be overwritten. Name another file.",
    ),
    (
        "run::self-test",
        "On this machine the model computes something else than the compiler did. Try `--checked`; the machine or a driver may be at fault.",
    ),
    ("run::sequence-too-long", "A sequence has more tokens than the model has positions."),
    (
        "run::slot",
        "A program that generates used a slot of its decoder that is not free, holds no sequence or does not exist. This is a fault of that program.",
    ),
    (
        "run::stray-write",
        "A kernel wrote outside its buffers, which only checked runs find. This is a fault of the compiler.",
    ),
    ("run::threads", "The operating system did not start the threads that were asked for."),
    ("run::token-range", "A token is not in the vocabulary of the model."),
    (
        "run::tokenizer",
        "A tokenizer.json or a file beside it cannot be read, is of another model, or does not know a text.",
    ),
    ("run::too-large", "A file is larger than anything that this program makes."),
    (
        "run::too-many-tokens",
        "More tokens at once than the program was compiled for, where they cannot run one step after the other. Compile with a larger \
         `--max-tokens`.",
    ),
    ("run::usage", "Options exclude or need each other."),
    (
        "run::whole-batch",
        "A batch has more tokens than a step of the program takes, and cannot be cut, because a router ranks the tokens of all its sequences (`scope = \"batch\"`). Give fewer sequences at once, or compile with a larger `--max-tokens`.",
    ),
    ("run::wrong-arch", "The host code of the artefact is for another processor."),
    ("trace::format", "A routing trace is malformed or cut short; the message says what is wrong first."),
    (
        "trace::experts",
        "The routing trace records choices of experts of other layers than the model has, or none: decisions that were generated have none. Record one with `skipc trace record`.",
    ),
    (
        "trace::lengths",
        "A routing trace has decisions about sequences of other lengths than the batch. Both are in the message.",
    ),
    (
        "trace::model",
        "A routing trace was recorded or generated for another spec than the artefact was compiled from. Make one for this model.",
    ),
    (
        "trace::recipe",
        "Decisions cannot be generated as the options ask: a share or a skew out of range, not one share for each router that decides, different shares for routers that decide together, or too many tokens.",
    ),
    ("trace::routers", "A routing trace has another number of routers than the model."),
    ("trace::version", "A routing trace is of a version of the format that this program does not read."),
];
