//! Decisions with given densities, for benchmarks that have to run the same again.

use serde::{Deserialize, Serialize};
use skipc_artifact::interface::RouterPorts;

use crate::error::Error;
use crate::random::random;

/// Most decisions that are generated: what a trace of that size takes is 512 MB in the file.
const DECISIONS_LIMIT: u64 = 1 << 32;

/// Largest skew. With it the second token is 2¹⁰⁰ times less likely than the first: as good as never.
const SKEW_LIMIT: f64 = 100.0;

/// How decisions are drawn.
///
/// A router of density p executes exactly `round(p · n)` of the n tokens of the batch, halves away from zero, drawn
/// one after the other without replacement, each with a probability proportional to its weight. The weight of a token
/// is `rank^(−skew)`, where the ranks 1 to n are a permutation drawn from the seed and shared by all routers. With
/// skew 0 all tokens are equal and routers independent; the larger it is, the more are the same tokens executed
/// everywhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Share of tokens that execute, in `[0, 1]`, for each router that decides, in model order.
    pub densities: Vec<f64>,
    /// Exponent of the weights, 0 to 100.
    pub skew: f64,
    /// Of all that is drawn.
    pub seed: u64,
}

/// What can decide about a router's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decider {
    /// Nothing: it is the same for every token.
    Constant(bool),
    /// Whoever forces it.
    Free,
    /// What this earlier router decided: they were proved equal and share their decisions.
    SameAs(usize),
}

/// What decides in a function with these routers.
#[must_use]
pub fn deciders(routers: &[RouterPorts]) -> Vec<Decider> {
    let decider = |(router, ports): (usize, &RouterPorts)| match ports {
        RouterPorts::Constant(executes) => Decider::Constant(*executes),
        RouterPorts::Routed { forced: own, .. } => {
            let shares =
                |ports: &RouterPorts| matches!(ports, RouterPorts::Routed { forced, .. } if forced == own);
            match routers.iter().position(shares) {
                Some(first) if first != router => Decider::SameAs(first),
                _ => Decider::Free,
            }
        }
    };
    routers.iter().enumerate().map(decider).collect()
}

pub(super) fn gates(deciders: &[Decider], lengths: &[u32], recipe: &Recipe) -> Result<Vec<Vec<u8>>, Error> {
    let n: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
    check(deciders, n, recipe)?;
    let n = n as usize;
    let ranks = ranks(recipe.seed, n);
    let mut densities = recipe.densities.iter();
    let mut gates: Vec<Vec<u8>> = Vec::new();
    for (router, decider) in (0u64..).zip(deciders) {
        let gate = match *decider {
            Decider::Constant(executes) => vec![u8::from(executes); n],
            Decider::Free => {
                let density = densities.next().copied().unwrap_or_default();
                draw(recipe, router, density, &ranks)
            }
            Decider::SameAs(first) => {
                densities.next();
                gates.get(first).cloned().unwrap_or_default()
            }
        };
        gates.push(gate);
    }
    Ok(gates)
}

fn check(deciders: &[Decider], n: u64, recipe: &Recipe) -> Result<(), Error> {
    let refuse = |reason: String| Err(Error::Recipe { reason });
    if n.saturating_mul(deciders.len().max(1) as u64) > DECISIONS_LIMIT {
        return refuse(format!("{n} tokens for {} routers are too many", deciders.len()));
    }
    if !(0.0..=SKEW_LIMIT).contains(&recipe.skew) {
        return refuse(format!("a skew is 0 to {SKEW_LIMIT}, not {}", recipe.skew));
    }
    if let Some(density) = recipe.densities.iter().find(|density| !(0.0..=1.0).contains(*density)) {
        return refuse(format!("a density is 0 to 1, not {density}"));
    }
    let deciding: Vec<usize> = (0..deciders.len())
        .filter(|router| !matches!(deciders.get(*router), Some(Decider::Constant(_))))
        .collect();
    if deciding.len() != recipe.densities.len() {
        let (found, total) = (recipe.densities.len(), deciders.len());
        return refuse(format!("{found} densities for {} of {total} routers that decide", deciding.len()));
    }
    let density = |router: usize| {
        let place = deciding.iter().position(|other| *other == router)?;
        recipe.densities.get(place)
    };
    for (router, decider) in deciders.iter().enumerate() {
        if let Decider::SameAs(first) = *decider
            && density(first) != density(router)
        {
            return refuse(format!(
                "routers {first} and {router} decide together, but their densities differ"
            ));
        }
    }
    Ok(())
}

/// A token's place, 1 to n, in an order drawn from the seed.
fn ranks(seed: u64, n: usize) -> Vec<f64> {
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_cached_key(|token| (random(seed, 0, *token as u64), *token));
    let mut ranks = vec![0.0; n];
    for (rank, token) in order.into_iter().enumerate() {
        ranks[token] = rank as f64 + 1.0;
    }
    ranks
}

/// Draws as Efraimidis and Spirakis do (2006): of keys `−ln(u) / weight` the smallest are taken; here their
/// logarithms, so that no weight is too small.
fn draw(recipe: &Recipe, router: u64, density: f64, ranks: &[f64]) -> Vec<u8> {
    let n = ranks.len();
    let mut keys: Vec<(f64, usize)> = ranks
        .iter()
        .enumerate()
        .map(|(token, rank)| {
            let random = random(recipe.seed, router + 1, token as u64);
            // In the middle of its 2⁵³rd, so neither 0 nor 1.
            let uniform = ((random >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
            (libm::log(-libm::log(uniform)) + recipe.skew * libm::log(*rank), token)
        })
        .collect();
    let count = ((density * n as f64).round() as usize).min(n);
    let mut gate = vec![0; n];
    if count > 0 && count < n {
        keys.select_nth_unstable_by(count, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    }
    for (_, token) in keys.into_iter().take(count) {
        gate[token] = 1;
    }
    gate
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: [Decider; 2] = [Decider::Free; 2];

    fn recipe(densities: &[f64], skew: f64) -> Recipe {
        Recipe { densities: densities.to_vec(), skew, seed: 11 }
    }

    fn both(gates: &[Vec<u8>]) -> usize {
        gates[0].iter().zip(&gates[1]).filter(|pair| *pair == (&1, &1)).count()
    }

    #[test]
    fn counts_are_exact() {
        for n in [0u32, 1, 2, 7, 64, 1001] {
            for density in [0.0, 0.1, 0.25, 0.5, 0.999, 1.0] {
                for skew in [0.0, 1.0, 100.0] {
                    let gates = gates(&TWO[..1], &[n, 0], &recipe(&[density], skew)).unwrap();
                    let executed: u64 = gates[0].iter().map(|row| u64::from(*row)).sum();
                    assert_eq!(executed, (density * f64::from(n)).round() as u64, "{density} of {n}");
                }
            }
        }
    }

    #[test]
    fn skew_makes_routers_agree() {
        let shared = |skew: f64| both(&gates(&TWO, &[4000], &recipe(&[0.25, 0.25], skew)).unwrap());
        // Of 1000 tokens 250 are shared by chance, with a standard deviation of 12.
        assert!((190..310).contains(&shared(0.0)), "{}", shared(0.0));
        assert!(shared(0.5) > 290 && shared(2.0) > shared(0.5) + 100, "{} {}", shared(0.5), shared(2.0));
        assert!(shared(100.0) > 980, "{}", shared(100.0));
    }

    #[test]
    fn same_seed_same_decisions_and_prefix_of_routers() {
        let one = gates(&TWO[..1], &[100], &recipe(&[0.3], 0.7)).unwrap();
        let two = gates(&TWO, &[100], &recipe(&[0.3, 0.6], 0.7)).unwrap();
        assert_eq!(one[0], two[0], "a router's decisions do not depend on later ones");
        let other = Recipe { seed: 12, ..recipe(&[0.3], 0.7) };
        assert_ne!(one, gates(&TWO[..1], &[100], &other).unwrap());
        // Pinned, so that a trace can be made again by any version.
        let pinned = gates(&TWO[..1], &[12], &recipe(&[0.5], 0.5)).unwrap();
        assert_eq!(pinned[0], [1, 1, 0, 1, 0, 1, 1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn constants_and_shared_decisions_are_kept() {
        let routers = [Decider::Constant(true), Decider::Free, Decider::Constant(false), Decider::SameAs(1)];
        let gates = |densities: &[f64]| gates(&routers, &[9], &recipe(densities, 0.0));
        let made = gates(&[0.5, 0.5]).unwrap();
        assert_eq!((&made[0], &made[2]), (&vec![1; 9], &vec![0; 9]));
        assert_eq!(made[1], made[3]);
        for wrong in [&[0.5][..], &[0.5, 0.25], &[0.5, 0.5, 0.5], &[1.5, 1.5], &[f64::NAN, f64::NAN]] {
            assert_eq!(gates(wrong).unwrap_err().code(), "trace::recipe", "{wrong:?}");
        }
        let skew = Recipe { skew: -1.0, ..recipe(&[0.5, 0.5], 0.0) };
        assert_eq!(super::gates(&routers, &[9], &skew).unwrap_err().code(), "trace::recipe");
        let huge = super::gates(&routers, &[u32::MAX; 2], &recipe(&[0.5, 0.5], 0.0));
        assert_eq!(huge.unwrap_err().code(), "trace::recipe");
    }
}
