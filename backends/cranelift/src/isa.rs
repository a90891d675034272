//! Which instructions may be generated.

use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use skipc_artifact::image::HostArch;

use crate::error::Fault;

/// The baseline of an architecture, never the features of this machine: the same plan gives the same bytes
/// everywhere. On x86-64 that is SSE2, which is all that vectors of four f32 need here: no rounding instructions, no
/// byte shuffles, no fused multiply-add.
pub(crate) fn baseline(arch: HostArch) -> Result<OwnedTargetIsa, Fault> {
    let triple = match arch {
        HostArch::X86_64 => "x86_64-unknown-linux-gnu",
        HostArch::Aarch64 => "aarch64-unknown-linux-gnu",
    };
    let refused = |message: String| Fault::Cranelift(format!("{triple}: {message}"));
    let mut flags = settings::builder();
    for (name, value) in [
        ("opt_level", "speed"),
        ("is_pic", "true"),
        // Both would call functions of a C library, and nothing here needs a probed or unwound stack.
        ("enable_probestack", "false"),
        ("unwind_info", "false"),
        ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
    ] {
        flags.set(name, value).map_err(|error| refused(error.to_string()))?;
    }
    let builder = isa::lookup_by_name(triple).map_err(|error| refused(error.to_string()))?;
    builder.finish(settings::Flags::new(flags)).map_err(|error| refused(error.to_string()))
}
