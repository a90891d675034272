//! What users and tools see of a plan.

use crate::{HEAD, plan};

const LINES: &str = r#"
  %w = weight {name="w", shape=[4, 4]}
  %f = matmul %x, %w
  %g = gelu %f
  %y = add %x, %g
  %logits = matmul %y, %table
  return logits = %logits"#;

#[test]
fn json_reads_back() {
    let plan = plan(&format!("{HEAD}{LINES}"));
    let json = serde_json::to_string(&plan).expect("it has a JSON form");
    assert_eq!(serde_json::from_str::<skipc_plan::Plan>(&json).expect("it reads back"), plan);
}

#[test]
fn same_graph_same_plan() {
    let text = format!("{HEAD}{LINES}");
    assert_eq!(plan(&text).to_string(), plan(&text).to_string());
}

#[test]
fn print_names_operands_and_values() {
    let text = plan(&format!("{HEAD}{LINES}")).to_string();
    let wanted = "\
kernel k01_gemm_4x4 over *n_tokens <= 256 rows
  p0 n_tokens: u32[_, 1] read
  p1 a: f32[_, 4] read
  p2 w: f32[_, 4] read
  p3 out: f32[_, 4] write
  acc0 = a [_, 4] x w [4, 4]
  r0 = acc0
  r1 = gelu r0
  r2 = a
  r3 = r2 + r1
  out = r3
";
    assert!(text.contains(wanted), "{text}");
    assert!(text.contains("k01_gemm_4x4(n_tokens: b0, a: b6, w: c1 w, out: b7)"), "{text}");
    assert!(text.contains("%7 = gelu %6 : real[n, 4]"), "{text}");
}
