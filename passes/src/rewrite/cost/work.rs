//! The table of prices: what each kind of work takes. Ops are priced by it when forms are chosen ([`super::time`]), and
//! kernels once they are planned (`skipc inspect --cost`), so that both speak of one machine.

use skipc_ir::elementwise;

use super::Target;

/// A kind of work, as much of it as is done for one element, multiply-add, or row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A multiply-add of a matmul.
    Matmul,
    /// A multiply-add of a matmul with few columns, such as router logits.
    NarrowMatmul,
    /// Attention, for a column of a query and a key of its sequence, seen or not.
    Attention,
    /// The same for rows that are done one by one, instead of in tiles.
    AttentionRow,
    /// A column of a key, seen or not, is laid out for a matmul with a tile of queries.
    AttentionKey,
    /// An element is read or written in order.
    Move,
    /// An element of a row that a list names is read or written, beyond what it takes in order.
    Find,
    /// A function of elements that are at hand.
    Function(elementwise::Cost),
    /// An element of a small table, or of the other half of a head.
    Lookup,
    /// An element of a norm by the root of the mean of squares.
    RmsNorm,
    /// An element of a norm by mean and variance.
    LayerNorm,
    /// An element of a row of which a norm wants to know by what to scale it.
    InvRms,
    /// An element of a row that is looked up.
    Embed,
    /// An element of a rotary embedding that is a kernel of its own.
    Rope,
    /// A logit of an expert: to be read, to be made a score, to be ranked.
    Choose,
    /// A row of which a route decides.
    Route,
}

impl Target {
    /// Nanoseconds of one piece of work.
    pub fn price(&self, work: Work) -> f64 {
        let moves = match work {
            Work::Matmul => return self.gemm_mac,
            Work::NarrowMatmul => return self.dot_mac,
            Work::Attention => return self.attention_mac,
            Work::AttentionRow => return self.attention_row_mac,
            Work::AttentionKey => return self.attention_key,
            Work::Find => return self.gathered,
            Work::Function(elementwise::Cost::Exponential) => return self.exp,
            // What a few instructions take that wait for no memory.
            Work::Function(elementwise::Cost::Arithmetic) => 0.1,
            Work::Choose => return self.exp + self.element,
            Work::Lookup => 0.5,
            Work::Move => 1.0,
            // A mean reads the row twice, squares read it once; its use is a read, a gain and a result.
            Work::InvRms => 1.0,
            Work::RmsNorm => 3.0,
            Work::LayerNorm => 5.0,
            Work::Embed => 2.0,
            // Itself, both tables by half, and the result.
            Work::Rope => 3.0,
            // A score, a decision to replay, a row number and a mask.
            Work::Route => 4.0,
        };
        moves * self.element
    }
}
