//! Laws of the number domains.

use super::functions::{self, Heads};
use super::{Gf61, Number, Ring32};
use crate::elementwise::Unary;
use crate::random_score;
use crate::scoring::Scoring;

/// Numbers of the domain: corners first, then random ones.
fn numbers<N: Number>(make: fn(u64) -> N) -> Vec<N> {
    let corners = [0, 1, 2, 3, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 60) - 1, 1 << 60, (1 << 61) - 2];
    let random = (0..14).map(|idx| random_score(5, 0, 0, idx) << 32 | random_score(6, 0, 0, idx));
    corners.into_iter().chain(random).map(make).collect()
}

fn ring(bits: u64) -> Ring32 {
    Ring32(bits as u32)
}

fn ring_laws<N: Number>(numbers: &[N]) {
    for &a in numbers {
        assert_eq!(a.add(N::ZERO), a);
        assert_eq!(a.mul(N::ONE), a);
        assert_eq!(a.mul(N::ZERO), N::ZERO);
        assert_eq!(a.sub(a), N::ZERO);
        assert_eq!(N::ZERO.sub(a), a.mul(N::from_f64(-1.0)));
        for &b in numbers {
            assert_eq!(a.add(b), b.add(a));
            assert_eq!(a.mul(b), b.mul(a));
            assert_eq!(a.sub(b).add(b), a);
            // All that forms of a model know about division and order.
            assert_eq!(a.div(b), a.mul(N::ONE.div(b)));
            assert_eq!(a.max(b), b.max(a));
            assert_eq!(a.max(b).max(b), a.max(b));
            assert!(a.max(b).to_f64() >= a.to_f64());
            for &c in numbers {
                assert_eq!(a.add(b).add(c), a.add(b.add(c)));
                assert_eq!(a.mul(b).mul(c), a.mul(b.mul(c)));
                assert_eq!(a.mul(b.add(c)), a.mul(b).add(a.mul(c)));
                assert_eq!(a.max(b).max(c), a.max(b.max(c)));
            }
        }
        let mut quotients = [a, N::ONE, N::ZERO];
        N::div_all(&mut quotients, a);
        assert_eq!(quotients, [a.div(a), N::ONE.div(a), N::ZERO]);
    }
    assert_eq!(N::ZERO.exp(), N::ONE);
    assert_eq!(N::ONE.div(N::ONE), N::ONE);
}

#[test]
fn the_ring_and_the_field_are_what_they_are_called() {
    ring_laws(&numbers(ring));
    let field = numbers(Gf61::new);
    ring_laws(&field);
    for a in field {
        if a == Gf61::ZERO {
            assert_ne!(Gf61::ONE.div(a), Gf61::ZERO, "a reciprocal of nothing is some number");
        } else {
            assert_eq!(a.mul(Gf61::ONE.div(a)), Gf61::ONE);
        }
    }
    assert_eq!(Gf61::new(u64::MAX).residue(), 7);
    assert_eq!(Gf61::new((1 << 61) - 1), Gf61::ZERO);
}

fn constants<N: Number>() {
    for integer in [0.0, -0.0, 1.0, -1.0, 2.0, 12_345.0, -2_147_483_647.0] {
        assert_eq!(N::from_f64(integer).to_f64(), integer);
    }
    assert_eq!(N::from_f64(3.0), N::ONE.add(N::ONE).add(N::ONE));
    let opaque = [0.5, 0.25, 1.5, 1e-5, 0.1, f64::from(0.1f32), 4_294_967_297.0, f64::INFINITY];
    for (idx, value) in opaque.iter().enumerate() {
        let number = N::from_f64(*value);
        assert_eq!(number, N::from_f64(*value));
        assert_eq!(N::from_f64(-value), N::ZERO.sub(number));
        for other in opaque[..idx].iter().chain(&[0.0, 1.0]) {
            assert_ne!(number, N::from_f64(*other), "{value} and {other}");
        }
    }
}

#[test]
fn integers_are_themselves_and_other_constants_are_opaque() {
    constants::<Ring32>();
    constants::<Gf61>();
}

/// Functions are no functions of each other, and none is constant.
fn tags<N: Number>(numbers: &[N]) {
    let functions: [fn(N) -> N; 4] = [N::exp, N::tanh, N::rsqrt, |x| N::ONE.div(x)];
    for (idx, function) in functions.iter().enumerate() {
        for (place, &x) in numbers.iter().enumerate() {
            assert_eq!(function(x), function(x));
            for &y in numbers[..place].iter().filter(|y| **y != x) {
                assert_ne!(function(x), function(y), "function {idx} of {x:?} and {y:?}");
            }
            for other in &functions[..idx] {
                assert_ne!(function(x), other(x), "functions of {x:?}");
            }
        }
    }
}

#[test]
fn tags_tell_functions_and_arguments_apart() {
    tags(&numbers(ring));
    tags(&numbers(Gf61::new));
    let odd = |x: Ring32| x.0 % 2 == 1;
    assert!(numbers(ring).iter().all(|x| odd(x.exp()) && odd(x.rsqrt()) && odd(Ring32::ONE.div(*x))));
}

/// Functions that forms of a model write in different ways.
fn composites<N: Number>(numbers: &[N]) {
    for &x in numbers {
        assert_eq!(Unary::Silu.eval(x), x.mul(Unary::Sigmoid.eval(x)));
        assert_eq!(Unary::Relu.eval(Unary::Relu.eval(x)), Unary::Relu.eval(x));
        assert_eq!(Unary::OneMinus.eval(Unary::OneMinus.eval(x)), x);
        assert_eq!(Unary::Gelu.eval(N::ZERO), N::ZERO);
    }
    let reversed: Vec<N> = numbers.iter().rev().copied().collect();
    let products = reversed.iter().zip(numbers).map(|(a, b)| a.mul(*b));
    assert_eq!(functions::dot(numbers, &reversed), products.fold(N::ZERO, N::add));
}

#[test]
fn composite_functions_keep_the_laws_that_passes_use() {
    composites(&numbers(ring));
    composites(&numbers(Gf61::new));
}

/// What one head mixes from the rows `seen` of four keys.
fn mixed<N: Number>(seen: &[usize]) -> Vec<N> {
    let number = |idx: usize| N::from_f64(idx as f64 / 8.0 + 0.03);
    let (keys, values): (Vec<N>, Vec<N>) = (0..8).map(|idx| (number(idx), number(20 - idx))).unzip();
    let (mut scores, mut out) = (Vec::new(), Vec::new());
    let shape = Heads { heads: 1, kv_heads: 1, width: 2 };
    let query = [number(3), number(5)];
    functions::attend(
        (shape, Scoring::default()),
        &query,
        (&keys, &values),
        seen.iter().copied(),
        (&mut scores, &mut out),
    );
    out
}

#[test]
fn attention_in_exact_domains_does_not_depend_on_the_order_of_keys() {
    assert_eq!(mixed::<Ring32>(&[0, 1, 2, 3]), mixed::<Ring32>(&[3, 1, 0, 2]));
    assert_eq!(mixed::<Gf61>(&[0, 1, 2, 3]), mixed::<Gf61>(&[3, 1, 0, 2]));
    assert_ne!(mixed::<Gf61>(&[0, 1, 2, 3]), mixed::<Gf61>(&[0, 1, 2]), "a key is left out");
    assert_eq!(mixed::<Gf61>(&[]), [Gf61::ZERO; 2]);
    assert_eq!(mixed::<f64>(&[]), [0.0; 2]);
    // One key alone is mixed whole.
    assert_eq!(mixed::<f64>(&[1]), [18.0 / 8.0 + 0.03, 17.0 / 8.0 + 0.03]);
    assert_eq!(mixed::<Gf61>(&[1]), [18.0 / 8.0 + 0.03, 17.0 / 8.0 + 0.03].map(Gf61::from_f64));
}

#[test]
fn norms_are_what_their_formula_says() {
    let row = [1.0, -2.0, 4.0, 3.0f64];
    let (gain, bias) = ([1.0, 0.5, 2.0, -1.0], [0.0, 1.0, 0.0, -1.0]);
    let mut rms = row;
    functions::rms_norm(&mut rms, 0.5, &gain);
    for col in 0..4 {
        assert!((rms[col] - row[col] / 8.0f64.sqrt() * gain[col]).abs() < 1e-15);
    }
    let mut layer = row;
    functions::layer_norm(&mut layer, 0.75, &gain, &bias);
    // The mean is 1.5, the variance 5.25.
    for col in 0..4 {
        let wanted = (row[col] - 1.5) / 6.0f64.sqrt() * gain[col] + bias[col];
        assert!((layer[col] - wanted).abs() < 1e-15);
    }
}
