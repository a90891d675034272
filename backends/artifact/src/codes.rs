//! Every error code of this crate with what it means, for `skipc explain`.

/// Code and explanation, sorted by code.
pub const CODES: &[(&str, &str)] = &[
    (
        "artifact::duplicate",
        "Two sections have one name. Either the file was put together by hand, or its compiler is at fault.",
    ),
    ("artifact::entry", "The table of host functions points outside the code. Compile the model again."),
    (
        "artifact::external",
        "The constants of the artefact lie in a second file, and the one that is there is not it: it was written by another compile, damaged, or cut short. Copy both files together, or compile the model again.",
    ),
    (
        "artifact::hash",
        "The content of a section is not what its hash was taken of: the file was changed or damaged after it was written. Copy it again, or compile the model again.",
    ),
    (
        "artifact::header",
        "The header is whole but of another shape than this version writes. Compile the model again.",
    ),
    (
        "artifact::io",
        "A file could not be read, written, synced or renamed; the operating system's reason is in the message.",
    ),
    (
        "artifact::json",
        "A section holds JSON of another shape than this version writes. Compile the model again.",
    ),
    (
        "artifact::kind",
        "A section of the wanted name holds something else, such as code where a text belongs.",
    ),
    (
        "artifact::key",
        "A file of keys has something else. `skipc sign --new-key` writes a secret key, and the public one beside it as `.pub`; those that `openssl genpkey -algorithm ed25519` writes will do. `--key` takes the secret one, `--trust` one or more public ones.",
    ),
    ("artifact::layout", "The sections of the file overlap, or leave gaps that no compiler leaves."),
    ("artifact::limit", "The header says that the file is larger, or has more sections, than any artefact."),
    ("artifact::magic", "The file does not begin as an artefact does. Was the spec or the weights meant?"),
    (
        "artifact::missing",
        "The artefact has no section of this name; `skipc inspect M.skp --section` lists them.",
    ),
    ("artifact::object", "Generated host code cannot be read. This is a fault of the compiler."),
    (
        "artifact::padding",
        "There is something between two sections where only zeros belong; the file was changed.",
    ),
    (
        "artifact::preamble",
        "The first lines of the file are not as any compiler writes them; the file is damaged.",
    ),
    (
        "artifact::program",
        "The parts of a program do not fit each other. This is a fault of the compiler that made it.",
    ),
    ("artifact::relocation", "Generated host code needs a fixed address. This is a fault of the compiler."),
    (
        "artifact::section-name",
        "The name of a section is empty, too long, or has characters that names do not have.",
    ),
    (
        "artifact::signature",
        "The signature beside the artefact is not one of this artefact by a key of `--trust`: the artefact was compiled again or changed after it was signed, the signature is another one's, or the key is not in the file. Get both files again from whoever made them.",
    ),
    ("artifact::trailing", "The file goes on behind its last section; something was appended to it."),
    ("artifact::truncated", "The file is shorter than its header says. Copy or download it again."),
    (
        "artifact::undefined-symbol",
        "Generated host code calls a function that it does not have. This is a fault of the compiler.",
    ),
    (
        "artifact::unsigned",
        "With `--trust` only artefacts run that a known key signed, and beside this one there is no signature. Whoever made the artefact signs it with `skipc sign M.skp --key SECRET.pem`; the signature goes where the artefact goes.",
    ),
    (
        "artifact::version",
        "The artefact was written in a format of another version. Compile the model again with this one.",
    ),
    (
        "artifact::writable-data",
        "Generated host code has data that it may write. This is a fault of the compiler.",
    ),
];
