//! What can be wrong with a kernel or a plan, seen while it runs.

use skipc_artifact::target::DType;

/// Why an interpretation stopped. Every variant is a fault of the plan (or of the test that made the operands), never
/// of the model's numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A kernel names a parameter that it does not have.
    #[error("there is no parameter {0}")]
    NoParam(u32),
    /// An element outside of an operand.
    #[error("`{param}` has no element ({row}, {col}): it has {rows} rows of {cols}")]
    OutOfRange {
        /// The parameter.
        param: String,
        /// Physical row.
        row: u64,
        /// Column.
        col: u64,
        /// Rows of the operand.
        rows: u64,
        /// Columns of the operand.
        cols: u64,
    },
    /// An element that nobody wrote, or that another buffer in the same place wrote since.
    #[error("`{param}` holds no value at ({row}, {col}): {why}")]
    Undefined {
        /// The parameter.
        param: String,
        /// Physical row.
        row: u64,
        /// First column of the access.
        col: u64,
        /// What stands there instead.
        why: String,
    },
    /// An access that the parameter does not declare.
    #[error("`{param}` is {verb} but not declared so")]
    Access {
        /// The parameter.
        param: String,
        /// `read` or `written`.
        verb: &'static str,
    },
    /// A parameter of another type than its use asks for.
    #[error("`{param}` has elements of type {dtype}, but its use wants {wants}")]
    WrongType {
        /// The parameter.
        param: String,
        /// Its type.
        dtype: DType,
        /// What is wanted.
        wants: &'static str,
    },
    /// An operand that is no whole number of rows, or the wrong number of operands.
    #[error("{0}")]
    BadOperand(String),
    /// A row list that has a row twice.
    #[error("row list `{param}` has row {row} twice, the second time at {at}")]
    RowTwice {
        /// The parameter.
        param: String,
        /// Place in the list.
        at: u64,
        /// The row there.
        row: u32,
    },
    /// Keys that are not ordered by (sequence, position).
    #[error("keys are not ordered by sequence and position: row {row}")]
    KeyOrder {
        /// Logical row of the key.
        row: u32,
    },
    /// A count above the bound from the compile.
    #[error("count `{param}` is {count}, above its bound {at_most}")]
    Count {
        /// The parameter.
        param: String,
        /// Its value.
        count: u32,
        /// The bound.
        at_most: u32,
    },
    /// A kernel that contradicts itself.
    #[error("malformed kernel: {0}")]
    Malformed(String),
    /// A layout that contradicts itself, its kernels or the batch.
    #[error("malformed layout: {0}")]
    Layout(String),
    /// A batch that the layout cannot take.
    #[error("bad batch: {0}")]
    Batch(String),
    /// A fault in one step.
    #[error("step {step} (`{kernel}` for {origin}): {fault}")]
    InStep {
        /// Index of the step.
        step: usize,
        /// Name of its kernel.
        kernel: String,
        /// Where it comes from in the model.
        origin: String,
        /// What happened.
        #[source]
        fault: Box<Fault>,
    },
}
