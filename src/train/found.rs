//! What a step found before it changed anything, put together from parts of a batch and from ranks.

use std::collections::BTreeMap;

use skipc_ir::Role;
use skipc_ir::interp::{Number, Results};

use super::machine::failed;
use super::ranks::Ranks;
use crate::error::Error;

/// What a step found, before it changed anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Mean negative log probability of the targets, in nats.
    pub ce: f64,
    /// Of the teacher's distribution from the model's.
    pub kl: f64,
    /// Norm of the gradient.
    pub norm: f64,
    /// What each router wanted of each input.
    pub wanted: Vec<Vec<bool>>,
    /// What it executed.
    pub executed: Vec<Vec<bool>>,
}

/// What each router wanted, and what it executed. One without a capacity executes what it wants.
pub(super) fn masks<N: Number>(results: &Results<N>) -> Result<[Vec<Vec<bool>>; 2], Error> {
    let mask = |datum: &skipc_ir::interp::Datum<N>| {
        datum.mask().map(<[bool]>::to_vec).map_err(|error| failed(&error))
    };
    let mut executed = BTreeMap::new();
    for (role, datum) in results {
        if let Role::Decision { router } = role {
            executed.insert(*router, mask(datum)?);
        }
    }
    let mut wanted = executed.clone();
    for (role, datum) in results {
        if let Role::WantedMask { router } = role {
            wanted.insert(*router, mask(datum)?);
        }
    }
    Ok([wanted, executed].map(|of_routers| of_routers.into_values().collect()))
}

impl Found {
    /// Nothing yet, of so many routers.
    pub(super) fn of_routers(count: usize) -> Found {
        Found { wanted: vec![Vec::new(); count], executed: vec![Vec::new(); count], ..Found::default() }
    }

    /// Adds what a part of the batch found, behind those before.
    pub(super) fn add<N: Number>(&mut self, results: &Results<N>) -> Result<(), Error> {
        self.extend(masks(results)?);
        for (role, datum) in results {
            let Role::Result { name } = role else { continue };
            let sum = match name.as_str() {
                "kl" => &mut self.kl,
                "ce" => &mut self.ce,
                _ => continue,
            };
            *sum += datum.real().map_err(|error| failed(&error))?.1[0].to_f64();
        }
        Ok(())
    }

    fn extend(&mut self, [wanted, executed]: [Vec<Vec<bool>>; 2]) {
        self.wanted.iter_mut().zip(wanted).for_each(|(all, of_part)| all.extend(of_part));
        self.executed.iter_mut().zip(executed).for_each(|(all, of_part)| all.extend(of_part));
    }

    /// What all ranks found, each on its rows: sums of losses, and decisions in the order of rows.
    pub(super) fn of_all(self, ranks: &dyn Ranks) -> Found {
        if ranks.size() == 1 {
            return self;
        }
        let n_routers = self.wanted.len();
        let mut all = Found::of_routers(n_routers);
        for bytes in ranks.gather(&self.to_bytes()) {
            all.add_bytes(&bytes, n_routers);
        }
        all
    }

    /// Both losses, and a byte of two bits for each decision.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = [self.ce, self.kl].map(f64::to_le_bytes).concat();
        for (wanted, executed) in self.wanted.iter().zip(&self.executed) {
            bytes.extend(
                wanted.iter().zip(executed).map(|(wants, runs)| u8::from(*wants) | u8::from(*runs) << 1),
            );
        }
        bytes
    }

    fn add_bytes(&mut self, bytes: &[u8], n_routers: usize) {
        let Some((losses, decisions)) = bytes.split_at_checked(16) else { return };
        let mut losses = losses.as_chunks().0.iter().map(|word| f64::from_le_bytes(*word));
        self.ce += losses.next().unwrap_or_default();
        self.kl += losses.next().unwrap_or_default();
        let inputs = (decisions.len() / n_routers.max(1)).max(1);
        let masks = [1u8, 2].map(|bit| {
            let mask = |of_router: &[u8]| of_router.iter().map(|byte| byte & bit != 0).collect();
            decisions.chunks_exact(inputs).map(mask).collect()
        });
        self.extend(masks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ranks_found_stands_in_the_order_of_their_rows() {
        let first = Found {
            ce: 0.25,
            kl: 1.0,
            norm: 0.0,
            wanted: vec![vec![true, true], vec![false, true]],
            executed: vec![vec![true, false], vec![false, true]],
        };
        let second = Found {
            ce: 0.5,
            kl: 0.5,
            norm: 0.0,
            wanted: vec![vec![false], vec![true]],
            executed: vec![vec![false], vec![true]],
        };
        // A rank of which no row has a target has found nothing.
        let none = Found::of_routers(2);
        let mut all = Found::of_routers(2);
        for found in [&first, &none, &second] {
            all.add_bytes(&found.to_bytes(), 2);
        }
        assert_eq!((all.ce, all.kl), (0.75, 1.5));
        assert_eq!(all.wanted, [vec![true, true, false], vec![false, true, true]]);
        assert_eq!(all.executed, [vec![true, false, false], vec![false, true, true]]);
    }
}
