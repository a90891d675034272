//! Names of special registers (PTX ISA section 10).
//!
//! The parser has to tell a special register from a register that nobody declared. Which of them the machine can read
//! is the machine's affair.

/// With a component `.x`, `.y` or `.z`.
const VECTORS: [&str; 8] =
    ["%tid", "%ntid", "%ctaid", "%nctaid", "%clusterid", "%nclusterid", "%cluster_ctaid", "%cluster_nctaid"];

/// Without one.
const SCALARS: [&str; 26] = [
    "%laneid",
    "%warpid",
    "%nwarpid",
    "%smid",
    "%nsmid",
    "%gridid",
    "%is_explicit_cluster",
    "%cluster_ctarank",
    "%cluster_nctarank",
    "%lanemask_eq",
    "%lanemask_le",
    "%lanemask_lt",
    "%lanemask_ge",
    "%lanemask_gt",
    "%clock",
    "%clock_hi",
    "%clock64",
    "%globaltimer",
    "%globaltimer_lo",
    "%globaltimer_hi",
    "%reserved_smem_offset_begin",
    "%reserved_smem_offset_end",
    "%reserved_smem_offset_cap",
    "%total_smem_size",
    "%aggr_smem_size",
    "%dynamic_smem_size",
];

/// Whether a name is one of PTX's special registers.
pub(super) fn is_special(name: &str) -> bool {
    match name.split_once('.') {
        Some((vector, component)) => VECTORS.contains(&vector) && matches!(component, "x" | "y" | "z"),
        None => SCALARS.contains(&name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_needs_its_component() {
        assert!(is_special("%tid.x") && is_special("%cluster_nctaid.z") && is_special("%laneid"));
        assert!(
            !is_special("%tid") && !is_special("%tid.w") && !is_special("%laneid.x") && !is_special("%r1")
        );
    }
}
