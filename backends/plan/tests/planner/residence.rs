//! Steps that would wait for the host.

use skipc_artifact::interface::Role;
use skipc_artifact::program::{Arg, Extent, Step};
use skipc_plan::Plan;

use crate::in_place::layer;
use crate::plan;

#[test]
fn a_count_that_no_step_writes_is_waited_for() {
    let mut plan = plan(&layer(
        r#"  %y = scatter %x, %out, %set
  %logits = matmul %y, %table
  return logits = %logits, decision 0 = %gate"#,
    ));
    assert!(plan.host_waits().is_empty());
    let compact = plan.kernels.iter().position(|(symbol, _)| symbol.contains("compact"));
    let compact = compact.expect("a layer that is skipped") as u32;
    plan.function.steps.retain(|step| step.kernel != compact);
    let skipped: Vec<&str> =
        plan.function.steps.iter().filter(|step| is_skipped(&plan, step)).map(|step| &*step.origin).collect();
    assert!(!skipped.is_empty());
    assert_eq!(plan.host_waits(), skipped);
}

/// Whether a step works on fewer rows than there are tokens.
fn is_skipped(plan: &Plan, step: &Step) -> bool {
    let n_tokens = plan.function.interface.buffer(&Role::TokenCount).expect("a port");
    match plan.kernels[step.kernel as usize].1.extent {
        Extent::Counted { count, .. } => step.args[count as usize] != Arg::Buffer(n_tokens),
        Extent::Fixed(_) => false,
    }
}
