//! What the planner refuses, and how it says so.

use skipc_artifact::target::DType;
use skipc_plan::{Options, build};

use crate::{HEAD, legal, options};

fn dense() -> skipc_ir::Legal {
    legal(&format!("{HEAD}  %logits = matmul %x, %table\n  return logits = %logits"))
}

fn refused(options: Options) -> String {
    build(&dense(), &options).expect_err("it is refused").to_string()
}

#[test]
fn options_out_of_range() {
    assert_eq!(
        refused(Options { logits: 6, ..options() }),
        "the option `logits` is 6; it should be 5, the columns of the logits"
    );
    assert_eq!(
        refused(Options { max_tokens: 0, ..options() }),
        "the option `max_tokens` is 0; it should be from 1 to 2^30"
    );
    assert_eq!(
        refused(Options { max_positions: 0, ..options() }),
        "the option `max_positions` is 0; it should be at least 1"
    );
    assert_eq!(
        refused(Options { dtype: DType::U8, ..options() }),
        "the option `dtype` is u8; it should be f32 or bf16"
    );
}
