//! Every error code of directories with what it means; those of specs and weights hold for them, too.

/// Code and explanation, sorted by code.
pub const CODES: &[(&str, &str)] = &[
    (
        "config::alias",
        "A setting stands there under the name that other code gives it. The message says what it is read as.",
    ),
    (
        "config::differs",
        "The code with which a checkpoint was published computes something that the model does not, such as noise in evaluation. The message says what, and what happens in its place.",
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
        "weights::lora",
        "The checkpoint has changes of low rank beside the weights that they belong to. Add them to the weights, and leave them out.",
    ),
    (
        "weights::pickle",
        "The weights are in PyTorch's pickles, which can run programs when they are read. Write them as safetensors.",
    ),
    (
        "weights::shared",
        "Blocks that run several times with the same weights stand in the file several times, and are not the same there.",
    ),
    (
        "weights::twice",
        "Two files have the same tensor, or a directory has its weights twice: either could be meant.",
    ),
];
