//! The table of elementwise functions: what ops of the graph, pointwise programs of kernels and every code generator
//! mean by a function of one number or of two. One row defines a function: its word in text, its price, its error
//! bound, its value and its derivative in every number domain.
//!
//! How a target computes a function stands with the target, as a `match` over [`Unary`] or [`Binary`] that names every
//! function, so that a new row is a compile error there.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attr::{Attr, F64, Literal};
use crate::interp::Number;
use crate::ops::{AttrError, OpInfo, PrintAttr, Trait, check_names, print_list, read_attr};

/// What computing a function of an element that is at hand costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// A few additions and multiplications: next to nothing beside reading or writing the element.
    Arithmetic,
    /// An exponential and a division.
    Exponential,
}

/// What the table says of a function of one number.
#[derive(Debug)]
pub struct UnaryInfo {
    /// Its row among the ops.
    pub op: OpInfo,
    /// What an element costs.
    pub cost: Cost,
    /// Largest error of f32 code on a CPU, in units in the last place of the result.
    pub ulps: f64,
}

macro_rules! unary {
    ($(
        $(#[doc = $doc:literal])+
        $Name:ident $(($attr:ident: $Attr:ty, such as $sample:expr))? = $text:literal [$cost:ident, $ulps:literal ulp]
            |$x:ident| $value:expr, derivative $derivative:expr;
    )+) => {
        /// Functions of one number. See the table in the source of this module.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Unary {
            $($(#[doc = $doc])+ $Name $(($Attr))?,)+
        }

        /// All functions of one number, in the order of the table.
        const UNARY: &[UnaryInfo] = &[
            $(UnaryInfo {
                op: OpInfo {
                    name: $text,
                    operands: &["x"],
                    last_is_optional: false,
                    attrs: &[$((stringify!($attr), <$Attr as Attr>::KIND))?],
                    traits: &[Trait::RowWise, Trait::Pointwise],
                    doc: concat!($($doc, "\n"),+),
                },
                cost: Cost::$cost,
                ulps: $ulps,
            },)+
        ];

        enum UnaryRow { $($Name),+ }

        impl Unary {
            /// One of each, in the order of the table.
            pub const SAMPLES: &[Unary] = &[$(Unary::$Name $(($sample))?),+];

            /// What the table says of it.
            pub fn info(self) -> &'static UnaryInfo {
                match self { $(Unary::$Name { .. } => &UNARY[UnaryRow::$Name as usize],)+ }
            }

            /// Its value at `x`.
            #[inline]
            pub fn eval<N: Number>(self, x: N) -> N {
                match self { $(Unary::$Name $(($attr))? => { let $x = x; $value })+ }
            }

            /// Its derivative at `x`; where there is none, that from the left.
            #[inline]
            pub fn derivative<N: Number>(self, x: N) -> N {
                match self { $(Unary::$Name $(($attr))? => { let $x = x; $derivative })+ }
            }

            /// The function of this name with these attributes, if there is one of the name.
            pub(crate) fn read(name: &str, attrs: &[(String, Literal)]) -> Result<Option<Unary>, AttrError> {
                match name {
                    $($text => {
                        let info = &UNARY[UnaryRow::$Name as usize].op;
                        check_names(info, attrs)?;
                        Ok(Some(Unary::$Name $((read_attr::<$Attr>(info, stringify!($attr), attrs)?))?))
                    })+
                    _ => Ok(None),
                }
            }

            pub(crate) fn print_attrs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Unary::$Name $(($attr))? => print_list(f, &[$((stringify!($attr), $attr as &dyn PrintAttr))?]),)+
                }
            }
        }
    };
}

macro_rules! binary {
    ($(
        $(#[doc = $doc:literal])+
        $Name:ident = $text:literal $sign:literal
            |$a:ident, $b:ident| $value:expr, derivatives $derivatives:expr;
    )+) => {
        /// Functions of two numbers. See the table in the source of this module.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Binary {
            $($(#[doc = $doc])+ $Name,)+
        }

        /// The functions' rows among the ops, in the order of the table.
        const BINARY: &[OpInfo] = &[
            $(OpInfo {
                name: $text,
                operands: &[stringify!($a), stringify!($b)],
                last_is_optional: false,
                attrs: &[],
                traits: &[Trait::RowWise, Trait::Pointwise],
                doc: concat!($($doc, "\n"),+),
            },)+
        ];

        impl Binary {
            /// All of them, in the order of the table.
            pub const ALL: &[Binary] = &[$(Binary::$Name),+];

            /// The sign that stands between its operands in formulas.
            pub fn sign(self) -> &'static str {
                match self { $(Binary::$Name => $sign),+ }
            }

            /// Its value at `(a, b)`.
            #[inline]
            pub fn eval<N: Number>(self, a: N, b: N) -> N {
                match self { $(Binary::$Name => { let ($a, $b) = (a, b); $value })+ }
            }

            /// Its derivatives by `a` and by `b`, at `(a, b)`.
            #[inline]
            pub fn derivatives<N: Number>(self, a: N, b: N) -> (N, N) {
                match self { $(Binary::$Name => { let ($a, $b) = (a, b); $derivatives })+ }
            }
        }
    };
}

unary! {
    /// `x · ½(1 + tanh(√(2/π)(x + 0.044715 x³)))`.
    // In f32 its error grows towards the left tail, where the exponential magnifies the rounding of its argument.
    Gelu = "gelu" [Exponential, 220.0 ulp] |x| gelu(x), derivative gelu_derivative(x);
    /// `max(x, 0)`.
    Relu = "relu" [Arithmetic, 0.0 ulp] |x| x.max(N::ZERO), derivative x.step();
    /// `max(x, 0)²`.
    Relu2 = "relu2" [Arithmetic, 0.5 ulp] |x| relu2(x), derivative N::from_f64(2.0).mul(x.max(N::ZERO));
    /// `x · sigmoid(x)`.
    Silu = "silu" [Exponential, 3.0 ulp] |x| x.div(one_plus_exp_minus(x)), derivative silu_derivative(x);
    /// `1 / (1 + exp(−x))`.
    Sigmoid = "sigmoid" [Exponential, 2.0 ulp] |x| sigmoid(x), derivative sigmoid(x).mul(N::ONE.sub(sigmoid(x)));
    /// `x · ½(1 + erf(x / √2))` (Hendrycks and Gimpel 2016).
    // As with the other form: the rounding of the square in the exponential grows towards the left tail, up to 310 ulp at
    // −12.7, where the value is −4e−36.
    GeluErf = "gelu_erf" [Exponential, 400.0 ulp] |x| gelu_erf(x), derivative gelu_erf_derivative(x);
    /// Hyperbolic tangent.
    Tanh = "tanh" [Exponential, 3.0 ulp] |x| x.tanh(), derivative tanh_derivative(x);
    /// `1 − x`.
    OneMinus = "one_minus" [Arithmetic, 0.5 ulp] |x| N::ONE.sub(x), derivative constant(x, -1.0);
    /// `x · by`.
    Scale(by: F64, such as ordered_float::OrderedFloat(-0.7)) = "scale" [Arithmetic, 0.5 ulp]
        |x| x.mul(N::from_f64(by.0)), derivative constant(x, by.0);
}

binary! {
    /// `a + b`.
    Add = "add" "+" |a, b| a.add(b), derivatives constants(a, b, [1.0, 1.0]);
    /// `a − b`.
    Sub = "sub" "-" |a, b| a.sub(b), derivatives constants(a, b, [1.0, -1.0]);
    /// `a · b`.
    Mul = "mul" "*" |a, b| a.mul(b), derivatives (b, a);
}

impl Unary {
    pub(crate) fn rows() -> impl Iterator<Item = &'static OpInfo> {
        UNARY.iter().map(|info| &info.op)
    }

    /// Its row among the ops.
    pub(crate) fn row(self) -> &'static OpInfo {
        &self.info().op
    }

    /// The word in the text form.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What an element costs.
    pub fn cost(self) -> Cost {
        self.info().cost
    }

    /// The function of an operand, as formulas write it: `gelu r3`, `1 - r3`.
    pub fn formula(self, operand: &str) -> String {
        match self {
            Unary::OneMinus => format!("1 - {operand}"),
            Unary::Scale(by) => format!("{by} * {operand}"),
            _ => format!("{} {operand}", self.name()),
        }
    }
}

impl Binary {
    pub(crate) fn rows() -> impl Iterator<Item = &'static OpInfo> {
        BINARY.iter()
    }

    /// Its row among the ops.
    pub(crate) fn row(self) -> &'static OpInfo {
        &BINARY[self as usize]
    }

    /// The word in the text form.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The function of this name, if there is one.
    pub(crate) fn read(name: &str, attrs: &[(String, Literal)]) -> Result<Option<Binary>, AttrError> {
        let Some(function) = Binary::ALL.iter().find(|function| function.name() == name) else {
            return Ok(None);
        };
        check_names(function.row(), attrs)?;
        Ok(Some(*function))
    }

    #[expect(
        clippy::unused_self,
        reason = "ops print their attributes, and functions of two numbers have none"
    )]
    pub(crate) fn print_attrs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_list(f, &[])
    }
}

#[inline]
fn relu2<N: Number>(x: N) -> N {
    let positive = x.max(N::ZERO);
    positive.mul(positive)
}

#[inline]
fn one_plus_exp_minus<N: Number>(x: N) -> N {
    N::ONE.add(N::ZERO.sub(x).exp())
}

#[inline]
fn sigmoid<N: Number>(x: N) -> N {
    N::ONE.div(one_plus_exp_minus(x))
}

/// With `s` the sigmoid: `s · (1 + x · (1 − s))`.
fn silu_derivative<N: Number>(x: N) -> N {
    let s = sigmoid(x);
    s.mul(N::ONE.add(x.mul(N::ONE.sub(s))))
}

/// The factor of `x³` within GELU.
const GELU_CUBIC: f64 = 0.044_715;

/// `√(2/π)(x + 0.044715 x³)`.
#[inline]
fn gelu_argument<N: Number>(x: N) -> N {
    let cubic = x.add(N::from_f64(GELU_CUBIC).mul(x).mul(x).mul(x));
    N::from_f64((2.0 / std::f64::consts::PI).sqrt()).mul(cubic)
}

/// The tanh form of GELU (Hendrycks and Gimpel 2016).
#[inline]
fn gelu<N: Number>(x: N) -> N {
    N::from_f64(0.5).mul(x).mul(N::ONE.add(gelu_argument(x).tanh()))
}

/// With `t` the tanh and `u` its argument: `½(1 + t) + ½x · (1 − t²) · u′`.
fn gelu_derivative<N: Number>(x: N) -> N {
    let half = N::from_f64(0.5);
    let t = gelu_argument(x).tanh();
    let slope = N::from_f64((2.0 / std::f64::consts::PI).sqrt())
        .mul(N::ONE.add(N::from_f64(3.0 * GELU_CUBIC).mul(x).mul(x)));
    let within = half.mul(x).mul(N::ONE.sub(t.mul(t))).mul(slope);
    half.mul(N::ONE.add(t)).add(within)
}

/// `½(1 + erf(x / √2))`: the normal distribution.
#[inline]
fn normal_distribution<N: Number>(x: N) -> N {
    N::from_f64(0.5).mul(N::from_f64(-std::f64::consts::FRAC_1_SQRT_2).mul(x).erfc())
}

#[inline]
fn gelu_erf<N: Number>(x: N) -> N {
    x.mul(normal_distribution(x))
}

/// The distribution, and `x` times its density.
fn gelu_erf_derivative<N: Number>(x: N) -> N {
    let density =
        N::from_f64(-0.5).mul(x).mul(x).exp().mul(N::from_f64(1.0 / (2.0 * std::f64::consts::PI).sqrt()));
    normal_distribution(x).add(x.mul(density))
}

fn tanh_derivative<N: Number>(x: N) -> N {
    let t = x.tanh();
    N::ONE.sub(t.mul(t))
}

fn constant<N: Number>(_: N, value: f64) -> N {
    N::from_f64(value)
}

fn constants<N: Number>(_: N, _: N, values: [f64; 2]) -> (N, N) {
    let [a, b] = values.map(N::from_f64);
    (a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arguments that are no kinks.
    const ARGUMENTS: [f64; 12] = [-9.0, -4.5, -2.0, -0.75, -0.1, -0.01, 0.02, 0.3, 0.77, 1.5, 3.0, 8.0];
    const STEP: f64 = 1e-5;

    /// The difference over two steps, whose error is of the order of the square of a step.
    fn difference(function: impl Fn(f64) -> f64, x: f64) -> f64 {
        (function(x + STEP) - function(x - STEP)) / (2.0 * STEP)
    }

    fn check(what: &str, exact: f64, found: f64) {
        assert!((exact - found).abs() <= 1e-8 * exact.abs().max(1.0), "{what} is {found}, not {exact}");
    }

    #[test]
    fn derivatives_are_the_limits_of_differences() {
        for function in Unary::SAMPLES {
            for x in ARGUMENTS {
                let exact = difference(|x| function.eval(x), x);
                check(&format!("{function:?}′({x})"), exact, function.derivative(x));
            }
        }
        for function in Binary::ALL {
            for (a, b) in ARGUMENTS.iter().zip(ARGUMENTS.iter().rev()) {
                let (by_a, by_b) = function.derivatives(*a, *b);
                check(&format!("{function:?} by a"), difference(|a| function.eval(a, *b), *a), by_a);
                check(&format!("{function:?} by b"), difference(|b| function.eval(*a, b), *b), by_b);
            }
        }
    }

    #[test]
    fn relu_has_no_slope_at_its_kink() {
        assert_eq!(Unary::Relu.derivative(0.0), 0.0);
    }
}
