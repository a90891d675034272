//! Why there is no plan.

use skipc_artifact::target::DType;
use skipc_ir::text::NodeLocation;

/// Why a graph has no plan, or why a plan is not well-formed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// An option is out of range: the user's fault.
    #[error("the option `{option}` is {got}; it should be {wanted}")]
    Option {
        /// Which.
        option: &'static str,
        /// Its value.
        got: String,
        /// What it should be.
        wanted: String,
    },
    /// There is no kernel for this.
    #[error("no kernel can {what}\n  {place}")]
    Unsupported {
        /// What the graph asks for.
        what: &'static str,
        /// The node.
        place: NodeLocation,
    },
    /// All buffers, states or constants together have more bytes than fit 64 bits, or than a program may keep.
    #[error("the {what} need more bytes than are possible")]
    TooLarge {
        /// What is too large.
        what: &'static str,
    },
    /// A fault of the planner.
    #[error("internal error of the planner: {what}\n  {place}")]
    Internal {
        /// What happened.
        what: &'static str,
        /// The node.
        place: NodeLocation,
    },
    /// The function has no port of this role, which a node needs: a fault of the planner.
    #[error("the function has no port `{role}`")]
    NoPort {
        /// The role.
        role: String,
    },
    /// Plans that do not go into one program: a fault of who puts them together.
    #[error("{what}: `{name}`")]
    Link {
        /// What has to hold.
        what: &'static str,
        /// Of which function or state it does not.
        name: String,
    },
    /// The plan is not well-formed: a fault of the planner, or of who wrote the plan.
    #[error("{0}")]
    Verify(#[from] Box<VerifyError>),
}

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {fault}")]
pub struct VerifyError {
    /// Which part of the plan.
    pub at: At,
    /// What is wrong with it.
    pub fault: Fault,
}

/// A part of a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum At {
    /// A kernel.
    #[error("kernel `{symbol}`")]
    Kernel {
        /// Its symbol.
        symbol: String,
    },
    /// A step.
    #[error("step {step} (`{symbol}`, {origin})")]
    Step {
        /// Its index.
        step: usize,
        /// Its kernel.
        symbol: String,
        /// Where the work comes from in the model.
        origin: String,
    },
    /// A buffer.
    #[error("buffer {idx} `{name}`")]
    Buffer {
        /// Its index.
        idx: usize,
        /// What it holds.
        name: String,
    },
    /// A state.
    #[error("state {idx} `{name}`")]
    State {
        /// Its index.
        idx: usize,
        /// Its name.
        name: String,
    },
    /// A constant.
    #[error("constant {idx} `{name}`")]
    Constant {
        /// Its index.
        idx: usize,
        /// What it holds.
        name: String,
    },
    /// The plan as a whole.
    #[error("plan")]
    Plan,
}

/// What is wrong with a part of a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A slot, register, kernel, buffer or constant that is not there.
    #[error("{what} {idx} is not one of {len}")]
    Range {
        /// What is numbered.
        what: &'static str,
        /// The number.
        idx: usize,
        /// How many there are.
        len: usize,
    },
    /// Two kernels are equal or have one symbol.
    #[error("another kernel is equal or has the same symbol")]
    Twice,
    /// A symbol that backends do not take.
    #[error("a symbol should match [a-z0-9_]+")]
    Symbol,
    /// A parameter has another type than the kernel needs there.
    #[error("parameter `{param}` is {got}, not {wanted}")]
    DType {
        /// The parameter.
        param: String,
        /// Its type.
        got: DType,
        /// What it should be.
        wanted: &'static str,
    },
    /// A parameter has too few columns for how it is used, or another number than it needs.
    #[error("parameter `{param}` has {got} columns, not {wanted}")]
    Cols {
        /// The parameter.
        param: String,
        /// Its columns.
        got: u32,
        /// What it should have.
        wanted: u64,
    },
    /// A parameter is used otherwise than it is declared.
    #[error("parameter `{param}` is {used} without being declared so")]
    Access {
        /// The parameter.
        param: String,
        /// How the kernel uses it.
        used: &'static str,
    },
    /// A parameter that is read and written is read elsewhere than where it is written.
    #[error("parameter `{param}` is read at other places than those that the same tile writes")]
    Hazard {
        /// The parameter.
        param: String,
    },
    /// An operand has to be dense, with its first column first.
    #[error("parameter `{param}` has to be dense here")]
    Dense {
        /// The parameter.
        param: String,
    },
    /// An instruction uses a result that is not there yet.
    #[error("instruction {inst} uses the result of {uses}")]
    Register {
        /// The instruction.
        inst: usize,
        /// What it uses.
        uses: usize,
    },
    /// A sum over a weight that the kernel does not have.
    #[error("sum {acc} of {sums}")]
    Acc {
        /// Which sum.
        acc: u32,
        /// How many sums there are.
        sums: usize,
    },
    /// A size that the body cannot have.
    #[error("{what} is {got}")]
    Size {
        /// Which size.
        what: &'static str,
        /// Its value.
        got: u64,
    },
    /// A step gives its kernel another number of arguments than it takes.
    #[error("{got} arguments for {wanted} parameters")]
    Arity {
        /// How many it gives.
        got: usize,
        /// How many the kernel takes.
        wanted: usize,
    },
    /// An argument has another type or width than the parameter.
    #[error("parameter `{param}` takes {wanted}, not {got}")]
    Arg {
        /// The parameter.
        param: String,
        /// Type and columns of the argument.
        got: String,
        /// Type and columns of the parameter.
        wanted: String,
    },
    /// An argument has fewer rows than the kernel may touch.
    #[error("parameter `{param}` has {got} rows, fewer than the kernel may touch")]
    Rows {
        /// The parameter.
        param: String,
        /// Rows of the argument.
        got: u32,
    },
    /// A constant is written.
    #[error("parameter `{param}` is a constant and is written")]
    ConstantWritten {
        /// The parameter.
        param: String,
    },
    /// A buffer is read that nothing has written.
    #[error("parameter `{param}` reads buffer `{buffer}`, which nothing has written before")]
    Unwritten {
        /// The parameter.
        param: String,
        /// The buffer.
        buffer: String,
    },
    /// A buffer holds rows of another set than those that are read or replaced.
    #[error("parameter `{param}` finds the rows of another set in buffer `{buffer}`")]
    OtherRows {
        /// The parameter.
        param: String,
        /// The buffer.
        buffer: String,
    },
    /// A weight or table is no constant.
    #[error("parameter `{param}` has to be a constant")]
    NotConstant {
        /// The parameter.
        param: String,
    },
    /// A step writes what only the host writes.
    #[error("parameter `{param}` writes buffer `{buffer}`, which belongs to the host")]
    HostOwned {
        /// The parameter.
        param: String,
        /// The buffer.
        buffer: String,
    },
    /// Two parameters point to overlapping memory.
    #[error("parameters `{first}` and `{second}` overlap in memory")]
    Alias {
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// A row list was not made by a compaction over these rows.
    #[error("parameter {param} is a row list, but no compaction has made one in `{buffer}`")]
    RowList {
        /// The parameter.
        param: String,
        /// The buffer.
        buffer: String,
    },
    /// The row list and the extent belong to different sets.
    #[error("the row list, parameter {param}, is not of the set that counts the rows")]
    Extent {
        /// The parameter.
        param: String,
    },
    /// Two buffers that live at the same time overlap.
    #[error("overlaps buffer {other}, which lives at the same time")]
    Overlap {
        /// The other.
        other: usize,
    },
    /// A buffer's lifetime is not that of the steps that touch it.
    #[error("its lifetime is {got:?}, the steps that touch it are {wanted:?}")]
    Lifetime {
        /// As the plan says.
        got: Option<(u32, u32)>,
        /// As the steps say.
        wanted: Option<(u32, u32)>,
    },
    /// Something does not begin where it may.
    #[error("it begins at {got}, not at a multiple of {wanted}")]
    Align {
        /// Where it begins.
        got: u64,
        /// What it should be a multiple of.
        wanted: u64,
    },
    /// A buffer does not lie in the arena, or sizes overflow 64 bits.
    #[error("it does not lie within the arena")]
    Bounds,
    /// A port that is not what its role says, or is missing.
    #[error("interface: {reason}")]
    Interface {
        /// What is wrong, as the checker of artefacts says it.
        reason: String,
    },
}
