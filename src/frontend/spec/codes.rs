//! Every error code of the frontend with what it means, for `skipc explain`.

/// Code and explanation, sorted by code.
pub const CODES: &[(&str, &str)] = &[
    (
        "spec::bad_value",
        "A setting has a fixed set of words, and the word written is none of them; or a name is empty or cannot be shown.",
    ),
    (
        "spec::branches",
        "What a skip says of its branches does not fit together: `combine = \"sum\"` wants an `otherwise`; `combine = \"add\"` takes none, and scales the branch as a whole.",
    ),
    (
        "spec::duplicate_key",
        "A duplicate key: TOML allows each key of a table once, JSON each key of an object.",
    ),
    ("spec::empty", "A list that must have elements has none: a model needs blocks, a block needs layers."),
    (
        "spec::entry_on_block",
        "`decide = \"entry\"` takes a sub-layer's decision from the stream as it enters the block. The decision of a block, or of a stack, is always taken there.",
    ),
    (
        "spec::gate_with_highway",
        "A highway router has no executed set; it mixes both branches by its probability. `gate = \"scaled\"` would scale by the same probability again.",
    ),
    (
        "spec::head_split",
        "Heads do not come out even: `heads` must be a multiple of `kv_heads`, `d_model` one of `heads` unless `head_dim` is given, and `head_dim` must be even for rotary positions.",
    ),
    (
        "spec::limit",
        "The spec asks for more than the compiler takes on: widths, positions, sub-layers after stacks are expanded, names, or the file itself.",
    ),
    ("spec::missing_key", "A table lacks a key that has no default."),
    (
        "spec::nested_skip",
        "A block and one of its sub-layers, or a stack and one of its blocks, both decide which tokens run. Exactly one decision governs a row.",
    ),
    (
        "spec::no_pre_norm",
        "A router reads normed rows, or a block shares one norm, and the first layer concerned has no norm in front of it (`norms = \"post\"`).",
    ),
    (
        "spec::no_tokens",
        "The model takes rows of numbers or patches (`input = \"rows\"`, `\"patches\"`), and something in it needs token ids: a head that scores a vocabulary, or a `hash` router.",
    ),
    (
        "spec::only_on_stack",
        "`nested`, `router = \"depth\"`, a list of densities and `kv = \"first\"` are about the repetitions of a stack: they belong to its `skip`, and `first` to one that shares weights.",
    ),
    ("spec::out_of_range", "A number is outside the values that have a meaning."),
    (
        "spec::pooled",
        "`{ pool = \"mean\" }` in a decider gives a sequence one decision for all of its tokens: nothing can choose among them (top-k, a capacity, forced tokens), and nothing that decides without later tokens can take their mean.",
    ),
    ("spec::read", "The spec cannot be read from disk."),
    ("spec::syntax", "The file is not TOML in UTF-8."),
    ("spec::unknown_block", "A stack names a block that is not defined."),
    ("spec::unknown_key", "A table has a key that it does not know. Unknown keys are never ignored."),
    (
        "spec::unused_setting",
        "A setting would have no effect with the others as they are, for example a threshold for a router that has none.",
    ),
    ("spec::wrong_type", "A value is of another type than its key wants, for example a number in quotes."),
    ("weights::dtype", "A tensor is stored in a type other than f32, bf16 and f16."),
    ("weights::extra", "The weights hold a tensor that no layer of the model reads."),
    ("weights::header", "The weights are not a safetensors file, or its header contradicts itself."),
    (
        "weights::index",
        "The index of several weights files cannot be read, or says of a tensor that it is in a file where it is not.",
    ),
    ("weights::missing", "A tensor that the model needs is not in the weights."),
    ("weights::non_finite", "A tensor holds an infinity or NaN."),
    ("weights::read", "The weights cannot be read from disk."),
    ("weights::shape", "A tensor has another shape than the spec gives it."),
    ("weights::truncated", "The weights end before their header or their last tensor does."),
];

/// What a code means, if it is one of the frontend's.
pub fn explain(code: &str) -> Option<&'static str> {
    CODES.iter().find(|(known, _)| *known == code).map(|(_, text)| *text)
}
