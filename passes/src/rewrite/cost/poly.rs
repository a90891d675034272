//! Polynomials in the numbers of rows.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, Mul};

use skipc_ir::{Dim, SetSym};
use smallvec::SmallVec;

/// How many rows there are of each kind.
pub trait Counts {
    /// Tokens of the step.
    fn tokens(&self) -> f64;
    /// Rows of a set.
    fn rows(&self, set: SetSym) -> f64;
}

/// A polynomial whose variables are `n` and the counts of sets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Poly(BTreeMap<SmallVec<[Dim; 2]>, f64>);

/// Keys of a cache that a query sees, where nobody knows: all forms of a graph read the same ones.
const CACHED_KEYS: f64 = 512.0;

impl Poly {
    /// A number.
    pub fn constant(value: f64) -> Poly {
        Poly(BTreeMap::from([(SmallVec::new(), value)]))
    }

    /// The number of rows of a dimension.
    pub fn variable(dim: Dim) -> Poly {
        Poly(BTreeMap::from([(SmallVec::from_slice(&[dim]), 1.0)]))
    }

    /// The polynomial times a number.
    #[must_use]
    pub fn scale(&self, by: f64) -> Poly {
        Poly(self.0.iter().map(|(dims, factor)| (dims.clone(), factor * by)).collect())
    }

    /// Its value.
    pub fn at(&self, counts: &dyn Counts) -> f64 {
        let value = |dim: &Dim| match dim {
            Dim::Fixed(size) => f64::from(*size),
            Dim::Tokens => counts.tokens(),
            Dim::Count(set) => counts.rows(*set),
            Dim::Cached => CACHED_KEYS,
        };
        self.0.iter().map(|(dims, factor)| factor * dims.iter().map(value).product::<f64>()).sum()
    }
}

impl Add for Poly {
    type Output = Poly;

    fn add(mut self, other: Poly) -> Poly {
        for (dims, factor) in other.0 {
            *self.0.entry(dims).or_default() += factor;
        }
        self
    }
}

impl Mul for Poly {
    type Output = Poly;

    fn mul(self, other: Poly) -> Poly {
        let mut product = Poly::default();
        for (a_dims, a) in &self.0 {
            for (b_dims, b) in &other.0 {
                let mut dims: SmallVec<[Dim; 2]> = a_dims.iter().chain(b_dims).copied().collect();
                dims.sort_unstable();
                *product.0.entry(dims).or_default() += a * b;
            }
        }
        product
    }
}

impl fmt::Display for Poly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (dims, factor) in self.0.iter().filter(|(_, factor)| **factor != 0.0) {
            let sign = match (first, *factor < 0.0) {
                (true, false) => "",
                (true, true) => "-",
                (false, false) => " + ",
                (false, true) => " - ",
            };
            f.write_str(sign)?;
            let factor = factor.abs();
            first = false;
            match factor.fract() == 0.0 {
                true => write!(f, "{factor:.0}")?,
                false => write!(f, "{factor:.3}")?,
            }
            dims.iter().try_for_each(|dim| write!(f, "·{dim}"))?;
        }
        f.write_str(if first { "0" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Half;

    impl Counts for Half {
        fn tokens(&self) -> f64 {
            10.0
        }

        fn rows(&self, _: SetSym) -> f64 {
            5.0
        }
    }

    #[test]
    fn sums_and_products_are_those_of_the_values() {
        let (n, c) = (Poly::variable(Dim::Tokens), Poly::variable(Dim::Count(SetSym(1))));
        let sum = n.clone() + c.scale(2.0) + Poly::constant(1.0);
        assert_eq!(sum.at(&Half), 21.0);
        assert_eq!((sum.clone() * c.clone()).at(&Half), 105.0);
        assert_eq!((n.clone() + c.scale(-2.0)).to_string(), "1·n - 2·c1");
        assert_eq!(n.clone() * c.clone(), c * n);
        assert_eq!(sum.to_string(), "1 + 1·n + 2·c1");
        assert_eq!(Poly::default().to_string(), "0");
    }
}
