//! `lint::capacity_overflow`: how many tokens lose their slot when a router keeps to its density.

use skipc_ir::Rounding;

use super::{Lint, Site};
use crate::diagnostic::Diagnostic;
use crate::frontend::spec::skip::{Capacity, Decider, Skip};

/// Share of lost tokens from which on the lint speaks.
const WORTH_SAYING: f64 = 0.01;

/// Weight, against the most likely count, below which counts of a binomial are left out. The sum of all that is left
/// out changes no digit of an f64.
const NEGLIGIBLE: f64 = 1e-30;

/// Largest `capacity_factor` that a spec may have.
const LARGEST_FACTOR: f64 = 1e6;

/// How many tokens of a full group want to execute: probabilities of `first`, `first + 1`, …
struct Wanted {
    first: usize,
    probabilities: Vec<f64>,
    mean: f64,
}

pub(super) fn overflow(site: &Site<'_>) -> Option<Diagnostic> {
    let skip = site.skip;
    let capacity = skip.capacity()?;
    let slots = capacity.slots(skip.density);
    let wanted = Wanted::of(skip, &capacity, site.model.stream.max_positions)?;
    let share = wanted.lost(slots);
    if share < WORTH_SAYING {
        return None;
    }
    let group_size = capacity.group_size;
    let lost = percent(share);
    let message = if skip.decider() == Some(Decider::Always) {
        format!(
            "{slots} slots for groups of {group_size} tokens, which all want to execute: {lost} will be skipped"
        )
    } else {
        format!(
            "{slots} slots for groups of {group_size} tokens: at density {}, {lost} of those that want to execute \
             are expected to be skipped",
            skip.density
        )
    };
    let label = format!("⌈{group_size} · {} · {}⌉ slots", skip.density, capacity.factor);
    let help = help(skip, &capacity, &wanted, site.model.stream.max_positions);
    let keys = ["capacity_factor", "group_size"];
    Some(site.finding(Lint::CapacityOverflow, message, &keys, &label).help(help))
}

fn help(skip: &Skip, capacity: &Capacity, wanted: &Wanted, max_positions: usize) -> String {
    let enough = wanted.slots_for(WORTH_SAYING);
    let mut help = match factor_for(capacity, skip.density, enough) {
        Some(factor) => {
            let lost = percent(wanted.lost(enough));
            format!(
                "write `capacity_factor = {factor:?}` ({enough} slots, {lost} skipped), or use larger groups"
            )
        }
        None => "raise `density`, or remove `group_size`".to_owned(),
    };
    // Larger groups even out chance, where there is any.
    if wanted.probabilities.len() > 1 && capacity.group_size < max_positions {
        help.push_str(", or larger groups");
    }
    let crowd = top_k(skip, max_positions).min(capacity.group_size);
    let slots = capacity.slots(skip.density);
    if skip.top_k().is_some() && capacity.group_size < max_positions && crowd > slots {
        let worst = percent(1.0 - slots as f64 / crowd as f64);
        help.push_str(&format!(
            "; this takes the choices as spread evenly, and up to {worst} are lost where they crowd together"
        ));
    }
    help
}

/// Tokens that top-k takes from the longest sequence.
fn top_k(skip: &Skip, max_positions: usize) -> usize {
    let round = match skip.decider() {
        Some(Decider::TopK { round, .. }) => round,
        _ => Rounding::Up,
    };
    skipc_ir::top_k(skip.density, round, max_positions).min(max_positions)
}

/// A factor of few digits that gives this many slots.
fn factor_for(capacity: &Capacity, density: f64, slots: usize) -> Option<f64> {
    let exact = slots as f64 / (capacity.group_size as f64 * density);
    let gives = |factor: &f64| {
        let with = Capacity { factor: *factor, ..*capacity };
        *factor <= LARGEST_FACTOR && with.slots(density) == slots
    };
    if !exact.is_finite() {
        return None;
    }
    let rounded = (1..=9).flat_map(|digits| {
        let unit = 10f64.powi(digits);
        // Below the exact quotient, slots are still rounded up to the same number.
        [(exact * unit).floor() / unit, (exact * unit).ceil() / unit]
    });
    let mut fitting: Vec<f64> = rounded.filter(gives).collect();
    fitting.truncate(1);
    fitting.pop()
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

impl Wanted {
    /// `None` if no token ever wants to execute.
    fn of(skip: &Skip, capacity: &Capacity, max_positions: usize) -> Option<Wanted> {
        // No sequence fills a group that is longer than the longest sequence.
        let n = capacity.group_size.min(max_positions);
        match skip.decider()? {
            // Depth has no capacity.
            Decider::Never | Decider::Depth { .. } => None,
            Decider::Always => Some(Wanted::fixed(n)),
            // The whole sequence is one group, and its count is known.
            Decider::TopK { .. } if capacity.group_size >= max_positions => {
                Some(Wanted::fixed(top_k(skip, max_positions)))
            }
            Decider::Gumbel(_)
            | Decider::Sigmoid { .. }
            | Decider::TopK { .. }
            | Decider::Random { .. }
            | Decider::Hash { .. } => Wanted::binomial(n, skip.density),
        }
    }

    fn fixed(count: usize) -> Wanted {
        Wanted { first: count, probabilities: vec![1.0], mean: count as f64 }
    }

    /// Binomial counts by the ratio of neighbours, outwards from the most likely one: no factorials, and no product
    /// leaves the range of an f64.
    fn binomial(n: usize, p: f64) -> Option<Wanted> {
        if p <= 0.0 {
            return None;
        }
        if p >= 1.0 {
            return Some(Wanted::fixed(n));
        }
        let odds = p / (1.0 - p);
        let mode = ((n + 1) as f64 * p).floor().min(n as f64) as usize;
        let mut below = Vec::new();
        let (mut count, mut weight) = (mode, 1.0);
        while count > 0 && weight > NEGLIGIBLE {
            weight *= count as f64 / ((n - count + 1) as f64 * odds);
            count -= 1;
            below.push(weight);
        }
        let first = count;
        below.reverse();
        let mut probabilities = below;
        (count, weight) = (mode, 1.0);
        probabilities.push(weight);
        while count < n && weight > NEGLIGIBLE {
            weight *= (n - count) as f64 * odds / (count + 1) as f64;
            count += 1;
            probabilities.push(weight);
        }
        let total: f64 = probabilities.iter().sum();
        probabilities.iter_mut().for_each(|probability| *probability /= total);
        Some(Wanted { first, probabilities, mean: n as f64 * p })
    }

    /// Expected share of wanting tokens that get none of `slots`: `E[max(0, X − slots)] / E[X]`.
    fn lost(&self, slots: usize) -> f64 {
        let over =
            |(idx, probability): (usize, &f64)| (self.first + idx).saturating_sub(slots) as f64 * probability;
        self.probabilities.iter().enumerate().map(over).sum::<f64>() / self.mean
    }

    /// The fewest slots that lose less than `share`.
    fn slots_for(&self, share: f64) -> usize {
        let mut slots = self.first + self.probabilities.len() - 1;
        // E[max(0, X − s)] grows by P(X ≥ s) with each slot less.
        let (mut at_least, mut lost) = (0.0, 0.0);
        for probability in self.probabilities.iter().rev() {
            at_least += probability;
            if (lost + at_least) / self.mean >= share || slots == 0 {
                return slots;
            }
            lost += at_least;
            slots -= 1;
        }
        // Below `first` every slot less is a token lost for certain.
        let spare = (share * self.mean - lost).max(0.0).ceil() as usize;
        slots.saturating_sub(spare.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::spec::skip::Overflow;

    /// The same by factorials, which overflow from 170 tokens on.
    fn lost_by_factorials(n: usize, p: f64, slots: usize) -> f64 {
        let factorial = |n: usize| (1..=n).map(|i| i as f64).product::<f64>();
        let choose = |k: usize| factorial(n) / factorial(k) / factorial(n - k);
        let term = |k: usize| {
            let probability = choose(k) * p.powi(k as i32) * (1.0 - p).powi((n - k) as i32);
            k.saturating_sub(slots) as f64 * probability
        };
        (0..=n).map(term).sum::<f64>() / (n as f64 * p)
    }

    #[test]
    fn losses_are_those_of_the_binomial() {
        for (n, p) in [(1, 0.5), (2, 0.9), (16, 0.25), (64, 0.125), (64, 0.999), (100, 1e-3), (160, 0.5)] {
            let wanted = Wanted::binomial(n, p).expect("some want to");
            for slots in 0..=n {
                let (got, sure) = (wanted.lost(slots), lost_by_factorials(n, p, slots));
                assert!((got - sure).abs() < 1e-12, "n {n}, p {p}, {slots} slots: {got} and {sure}");
            }
        }
        // Two tokens at one half want both slots a quarter of the time: a quarter token lost of one.
        assert_eq!(Wanted::binomial(2, 0.5).map(|wanted| wanted.lost(1)), Some(0.25));
    }

    #[test]
    fn the_fewest_slots_are_found() {
        let groups =
            [(1, 0.5), (16, 0.25), (64, 0.999), (1000, 0.3), (3, 1.0), (1000, 1.0), (1024, 1.0), (950, 1.0)];
        for (n, p) in groups {
            let wanted = Wanted::binomial(n, p).expect("some want to");
            let enough = wanted.slots_for(WORTH_SAYING);
            assert!(wanted.lost(enough) < WORTH_SAYING, "n {n}, p {p}: {enough}");
            assert!(enough == 0 || wanted.lost(enough - 1) >= WORTH_SAYING, "n {n}, p {p}: {enough}");
        }
    }

    #[test]
    fn the_largest_groups_are_quick_and_near_the_normal_law() {
        let (n, p) = (1 << 24, 0.5);
        let wanted = Wanted::binomial(n, p).expect("some want to");
        assert!(wanted.probabilities.len() < 100_000);
        // E[max(0, X − E[X])] is the deviation times 0.3989.
        let deviation = (n as f64 * 0.25).sqrt();
        let got = wanted.lost(n / 2) * n as f64 * p / deviation;
        assert!((got - 0.398_942).abs() < 1e-4, "{got}");
    }

    #[test]
    fn factors_give_the_slots_they_promise() {
        for (group_size, density) in [(64, 0.25), (10, 0.3), (48, 0.125), (7, 0.9), (1000, 0.013)] {
            let capacity = Capacity { group_size, factor: 1.25, overflow: Overflow::Position };
            for slots in 1..=group_size {
                let factor = factor_for(&capacity, density, slots).expect("within the limit");
                let capacity = Capacity { factor, ..capacity };
                assert_eq!(capacity.slots(density), slots, "{group_size} tokens at {density}: {factor}");
            }
        }
        let of_eight = Capacity { group_size: 8, factor: 1.25, overflow: Overflow::Position };
        assert_eq!(factor_for(&of_eight, 1e-9, 2), None);
    }
}
