//! How large a spec may be. All limits are checked before anything is expanded or allocated by them.

use crate::diagnostic::Diagnostic;

/// Bytes of a spec. The example has one thousand.
pub const FILE_BYTES: usize = 1 << 20;

/// Sub-layers after stacks are expanded; thirty times those of the largest published models.
pub const LAYERS: usize = 4096;

/// Every width: vocabulary, residual stream, inner width, all heads together.
pub const WIDTH: usize = 1 << 20;

/// Positions of a sequence. They must be exact in f32, in which rotations are computed.
pub const POSITIONS: usize = 1 << 24;

/// Inputs that a row of a convolution takes. Published ones take 3 to 5, long filters of other kinds a few hundred.
pub const TAPS: usize = 4096;

/// Bytes of the name of a model or block.
pub const NAME_BYTES: usize = 128;

/// Bytes of a weights file's header. One with a row for every tensor of [`LAYERS`] layers needs a fifth.
pub const WEIGHTS_HEADER_BYTES: u64 = 16 << 20;

/// The finding for a file over [`FILE_BYTES`].
pub(in crate::frontend) fn file_too_large(name: &str) -> Diagnostic {
    Diagnostic::new("spec::limit", format!("{name} is larger than {FILE_BYTES} bytes"))
        .help("is this the spec? Weights go to `--weights`")
}
