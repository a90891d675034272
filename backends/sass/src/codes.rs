//! Every error code of this crate with what it means, for `skipc explain`.

/// Code and explanation, sorted by code.
pub const CODES: &[(&str, &str)] = &[
    (
        "sass::listing",
        "The disassembly of a cubin is not of the form that this version reads. It reads that of nvdisasm 13.2 with `-hex`, which the set-up script fetches.",
    ),
    (
        "sass::no-disassembler",
        "Machine code of GPUs is shown with NVIDIA's nvdisasm, and it was neither in the folder of tools (`SKIPC_CACHE`) nor on PATH. The set-up script fetches it.",
    ),
    (
        "sass::no-kernel",
        "The machine code lacks a kernel that it should have: it was assembled from something else. Compile the model again.",
    ),
    ("sass::refused", "NVIDIA's nvdisasm did not take the file; its reason is in the message."),
    (
        "sass::temporary",
        "nvdisasm reads files, and a temporary file for it could not be written. TMPDIR names the folder for temporary files.",
    ),
];
