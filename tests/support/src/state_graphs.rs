//! Two graphs with a state, and steps to run them over: a running sum of rows, and a capacity whose groups go on in the
//! next step.

use skipc_ir::interp::Batch;

/// Inputs, an embedding of 4 columns, and logits of 5.
const HEAD: &str = r#"
  %t = input {port=tokens}
  %p = input {port=positions}
  %s = input {port=sequences}
  %table = weight {name="embed.weight", shape=[5, 4]}
  %x = embed %table, %t
  %logits = matmul %x, %table"#;

/// A running sum of rows.
pub const SUM: &str = r#"
  %sum = input {port=state "sum"} : state<f32[1, 4]>
  %after = add_rows %sum, %x
  return logits = %logits, state "sum" = %after"#;

/// One of each three positions, whichever step they came in.
pub const CAPACITY: &str = r#"
  %counts = input {port=state "counts"} : state<int[3]>
  %rw = weight {name="blocks.0.router.weight", shape=[1, 4]}
  %z = router_logits %x, %rw
  %wanted = route %z {set=c0, at_least=0.0}
  %set = limit_first_after %wanted, %p, %s, %counts {set=c1, group_size=3, slots=1}
  %after = count_groups %counts, %wanted, %p, %s {group_size=3}
  %gate = executed %set
  %all = executed %wanted
  return logits = %logits, decision 0 = %gate, wanted 0 = %all, state "counts" = %after"#;

/// The update stands first in the text; what looks at the state still sees what the step found.
pub const UPDATE_FIRST: &str = r#"
  %counts = input {port=state "counts"} : state<int[3]>
  %rw = weight {name="blocks.0.router.weight", shape=[1, 4]}
  %z = router_logits %x, %rw
  %wanted = route %z {set=c0, at_least=0.0}
  %after = count_groups %counts, %wanted, %p, %s {group_size=3}
  %set = limit_first_after %wanted, %p, %s, %counts {set=c1, group_size=3, slots=1}
  %gate = executed %set
  return logits = %logits, decision 0 = %gate, state "counts" = %after"#;

/// The text form of one of these graphs.
pub fn text(body: &str) -> String {
    format!("graph \"toy\" {{{HEAD}{body}\n}}")
}

/// Lengths of the three sequences at most of each step: none, one, and those around a tile of 16 rows.
const STEPS: [&[usize]; 7] = [&[17], &[], &[1, 0, 2], &[15, 15, 1], &[16, 0, 16], &[0, 1], &[33, 2, 17]];

/// The tokens of each step, behind those of the steps before.
pub fn steps() -> Vec<Batch> {
    let mut before = [0; 3];
    let step = |lengths: &&[usize]| {
        let sequences: Vec<Vec<i64>> =
            lengths.iter().map(|len| (0..*len as i64).map(|idx| (idx * idx + 1) % 5).collect()).collect();
        let batch = Batch::from_sequences(sequences.iter().map(Vec::as_slice)).behind(&before);
        before.iter_mut().zip(*lengths).for_each(|(before, len)| *before += *len as i64);
        batch
    };
    STEPS.iter().map(step).collect()
}
