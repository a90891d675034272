//! Every error code of directories with what it means; those of specs and weights hold for them, too.

/// Code and explanation, sorted by code.
pub const CODES: &[(&str, &str)] = &[
    (
        "config::alias",
        "A setting stands there under the name that other code gives it. The message says what it is read as.",
    ),
    ("config::family", "The configuration is of a family of models that is not known, or not supported yet."),
    (
        "config::ignored",
        "The configuration has keys that its family does not have. They are ignored, as transformers ignores them.",
    ),
    (
        "config::unsupported",
        "The configuration asks for something that is known and that skipc cannot do yet, such as a kind of rotation.",
    ),
    (
        "weights::pickle",
        "The weights are in PyTorch's pickles, which can run programs when they are read. Write them as safetensors.",
    ),
    (
        "weights::twice",
        "Two files have the same tensor, or a directory has its weights twice: either could be meant.",
    ),
];
