//! Which scatters write over their base.

use skipc_artifact::program::Arg;
use skipc_plan::error::Fault;
use skipc_plan::kernel::{Body, Select};
use skipc_plan::{Plan, PlanError, verify};

use crate::{HEAD, ROUTER, plan, steps};

/// Whether a kernel writes rows of a buffer that an earlier step made.
fn writes_over(plan: &Plan, step: &str) -> bool {
    let idx = steps(plan).iter().rposition(|name| *name == step).expect("the step");
    let step = &plan.function.steps[idx];
    let kernel = &plan.kernels[step.kernel as usize].1;
    let written =
        kernel.params.iter().zip(&step.args).filter(|(param, _)| param.name.starts_with(['x', 'o']));
    written.filter(|(param, _)| param.access != skipc_plan::kernel::Access::Read).any(|(_, arg)| {
        matches!(arg, Arg::Buffer(buffer) if plan.function.buffers[*buffer as usize].live.is_none_or(|(first, _)| {
            (first as usize) < idx
        }))
    })
}

/// A skipped layer `gelu(x W)` over `base`, without a residual.
pub(crate) fn layer(rest: &str) -> String {
    format!(
        r#"{HEAD}{ROUTER}
  %h = gather %x, %set
  %g = gelu %h
  %w = weight {{name="w", shape=[4, 4]}}
  %out = matmul %g, %w
{rest}"#
    )
}

#[test]
fn scatter_writes_over_a_base_that_nobody_reads_later() {
    let plan = plan(&layer(
        r#"  %y = scatter %x, %out, %set
  %logits = matmul %y, %table
  return logits = %logits, decision 0 = %gate"#,
    ));
    assert!(writes_over(&plan, "gemm_4x4_scattered"), "{plan}");
    assert_eq!(steps(&plan).iter().filter(|name| **name == "map_4").count(), 1, "{plan}");
}

/// Another reader of the base comes later in the graph, but can run before.
#[test]
fn readers_of_the_old_base_run_first() {
    let plan = plan(&layer(
        r#"  %y = scatter %x, %out, %set
  %late = relu %x
  %both = add %y, %late
  %logits = matmul %both, %table
  return logits = %logits, decision 0 = %gate"#,
    ));
    // `relu` joins the last addition, which needs the scatter: so the base is copied.
    assert_eq!(steps(&plan).iter().filter(|name| **name == "map_4").count(), 3, "{plan}");
    let plan = crate::plan(&layer(
        r#"  %y = scatter %x, %out, %set
  %w2 = weight {name="w2", shape=[4, 4]}
  %late = matmul %x, %w2
  %r = matmul %late, %w2
  %both = add %y, %r
  %logits = matmul %both, %table
  return logits = %logits, decision 0 = %gate"#,
    ));
    assert_eq!(steps(&plan).iter().filter(|name| **name == "map_4").count(), 1, "{plan}");
    assert!(writes_over(&plan, "gemm_4x4_scattered"), "{plan}");
}

#[test]
fn base_that_is_read_after_the_scatter_is_copied() {
    let plan = plan(&layer(
        r#"  %y = scatter %x, %out, %set
  %f = matmul %y, %w
  %both = add %f, %x
  %logits = matmul %both, %table
  return logits = %logits, decision 0 = %gate"#,
    ));
    assert_eq!(steps(&plan).iter().filter(|name| **name == "map_4").count(), 2, "{plan}");
}

/// The matmul reads rows of the base, all columns of them, so that it cannot also write there.
#[test]
fn base_that_the_same_matmul_multiplies_is_copied() {
    let plan = plan(&format!(
        r#"{HEAD}{ROUTER}
  %h = gather %x, %set
  %w = weight {{name="w", shape=[4, 4]}}
  %out = matmul %h, %w
  %y = scatter %x, %out, %set
  %logits = matmul %y, %table
  return logits = %logits, decision 0 = %gate"#
    ));
    assert_eq!(steps(&plan).iter().filter(|name| **name == "map_4").count(), 1, "{plan}");
}

/// Keys and values of all tokens from the stream in the middle of a block: the base is needed a second time.
#[test]
fn second_scatter_of_one_base() {
    let plan = plan(&layer(
        r#"  %mid = scatter %x, %out, %set
  %f = matmul %mid, %w
  %fh = gather %f, %set
  %out2 = add %out, %fh
  %y = scatter %x, %out2, %set
  %logits = matmul %y, %table
  return logits = %logits, decision 0 = %gate"#,
    ));
    // One copy of the base for the first, none for the second.
    assert_eq!(plan.function.steps.len(), 11, "{plan}");
}

#[test]
fn scatter_of_rows_of_another_value_copies_them() {
    let plan = plan(&format!(
        r#"{HEAD}{ROUTER}
  %g = gelu %x
  %w = weight {{name="w", shape=[4, 4]}}
  %f = matmul %g, %w
  %f2 = matmul %f, %w
  %h = gather %f, %set
  %y = scatter %f2, %h, %set
  %logits = matmul %y, %table
  return logits = %logits, decision 0 = %gate"#
    ));
    assert!(writes_over(&plan, "map_4"), "{plan}");
}

#[test]
fn logits_that_are_a_scatter_are_copied_out() {
    let plan = plan(&format!(
        r#"{HEAD}{ROUTER}
  %f = matmul %x, %table
  %h = gather %x, %set
  %g = gelu %h
  %fh = matmul %g, %table
  %y = scatter %f, %fh, %set
  return logits = %y, decision 0 = %gate"#
    ));
    assert_eq!(steps(&plan).last(), Some(&"map_5"));
}

/// Two branches over one base, the second over these rows; its rows read the base, too.
fn two_branches(rest: &str) -> String {
    layer(&format!(
        r#"{rest}
  %hr = gather %x, %rest
  %gr = gelu %hr
  %or = matmul %gr, %w
  %sum = add %hr, %or
  %mid = scatter %x, %out, %set
  %y = scatter %mid, %sum, %rest
  %logits = matmul %y, %table
  return logits = %logits, decision 0 = %gate"#
    ))
}

/// A branch and that of the other rows write all rows, so that nothing of the base is copied for the first, though the second reads
/// it. Rows of any other set are not known to be the rest.
#[test]
fn rows_of_a_set_and_of_its_complement_need_no_copy_of_the_base() {
    let n_maps = |plan: &Plan| steps(plan).iter().filter(|name| **name == "map_4").count();
    let covered = plan(&two_branches("  %rest = complement %set {set=c1}"));
    assert_eq!(n_maps(&covered), 2, "{covered}");
    let others = plan(&two_branches("  %rest = route %margin {set=c1, at_least=0.75}"));
    assert_eq!(n_maps(&others), 3, "{others}");
}

/// If what completes a buffer is not the complement, not all of its rows are written.
#[test]
fn a_complement_that_is_not_complete_is_found() {
    let mut plan = plan(&two_branches("  %rest = complement %set {set=c1}"));
    for (_, kernel) in &mut plan.kernels {
        if let Body::Compact(compact) = &mut kernel.body
            && let Select::NotIn(executed) = &mut compact.select
        {
            *executed = compact.forced;
        }
    }
    let errors = verify(&plan).expect_err("the change is found");
    let unwritten = |error: &PlanError| matches!(error, PlanError::Verify(error) if matches!(error.fault, Fault::Unwritten { .. }));
    assert!(errors.iter().any(unwritten), "{errors:?}");
}
