//! A model with and without equality saturation, at several densities.

use std::path::Path;

use skipc::spec;
use skipc_runtime::Batch;

use crate::subject::{Failed, Subject, batch, shortest};

const DENSITIES: [f64; 6] = [0.05, 0.125, 0.25, 0.5, 0.75, 1.0];

/// Prints the times of both forms.
pub(crate) fn run(path: &Path, tokens: u32, rounds: usize) -> Result<(), Failed> {
    let model = spec::load(path).map_err(|error| format!("{error:?}"))?;
    let (without, with) = (skipc_passes::plain_pipeline(), skipc_passes::default_pipeline());
    let mut before = Subject::of_model(&model, Some(without))?;
    let mut after = Subject::of_model(&model, Some(with))?;
    println!("{}, {tokens} tokens, 1 thread, shortest of {rounds}", model.name);
    println!("kernels of a step: {} before, {} with `saturate`", before.n_steps, after.n_steps);
    println!("density   before µs    after µs   ratio");
    for density in DENSITIES {
        let n_routers = model.skips().count();
        let mask = |router: usize| {
            let every = |row: u32| {
                let place = (row * 7919 + router as u32 * 31) % tokens.max(1);
                u8::from(f64::from(place) < density * f64::from(tokens))
            };
            (0..tokens).map(every).collect()
        };
        let routing = Some((0..n_routers).map(mask).collect());
        let batch = Batch { routing, ..batch(1, tokens) };
        let times = shortest(&mut [(&mut before, &batch), (&mut after, &batch)], rounds)?;
        let (before, after) = (times[0] / 1e3, times[1] / 1e3);
        println!("{density:>7}  {before:>10.0}  {after:>10.0}   {:.3}", before / after);
    }
    Ok(())
}
