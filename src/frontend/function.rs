//! Functions of elements that a spec names.

use skipc_ir::Unary;

use super::language::words::words;

/// What is made of each element: by a step of a decider, or of what a convolution gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementFunction {
    /// The element itself.
    None,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²`.
    Relu2,
    /// The tanh form.
    Gelu,
    /// With the error function.
    GeluErf,
    /// `x · σ(x)`.
    Silu,
    /// Hyperbolic tangent.
    Tanh,
}

words! {
    ElementFunction {
        None = "none", Relu = "relu", Relu2 = "relu2", Gelu = "gelu", GeluErf = "gelu_erf", Silu = "silu", Tanh = "tanh",
    }
}

impl ElementFunction {
    /// The function, if it is one.
    pub fn unary(self) -> Option<Unary> {
        match self {
            ElementFunction::None => None,
            ElementFunction::Relu => Some(Unary::Relu),
            ElementFunction::Relu2 => Some(Unary::Relu2),
            ElementFunction::Gelu => Some(Unary::Gelu),
            ElementFunction::GeluErf => Some(Unary::GeluErf),
            ElementFunction::Silu => Some(Unary::Silu),
            ElementFunction::Tanh => Some(Unary::Tanh),
        }
    }
}
