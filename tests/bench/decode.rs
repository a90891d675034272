//! Time of a step of decoding: for an artefact, one token of 1, 2, 4, 8 and 32 slots behind so many tokens, beside a whole
//! prefix again. `cargo run --release --features cuda --example decode-steps -- MODEL.skp [THREADS]`.

use std::time::{Duration, Instant};

use skipc_runtime::decode::{Cached, Chunk, Decoder, Recompute, Rows, Slot};
use skipc_runtime::{Device, Model, Module, Options, Session};

/// Steps of a measurement; the median counts.
const STEPS: usize = 40;

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let path = args.first().ok_or("which artefact?")?;
    let threads = args.get(1).map_or(Ok(2), |threads| threads.parse())?;
    let model = Model::open(path.as_ref())?;
    let module = Module::load(&model, Device::Cpu, Options { threads, ..Options::default() })?;
    let function = module.function("step")?;
    let (positions, vocab) = (function.max_positions, function.vocab_size);
    println!(
        "{path}: {}, {threads} threads, {} bytes of cache a token",
        module.describe(),
        Cached::bytes_of_token(&module)
    );
    println!("behind  slots  ms a step  tokens a second  share executed");
    let token = |idx: u32| (idx * 7919 + 13) % vocab;
    for behind in [16, 64, 256, 512] {
        if behind + STEPS as u32 + 8 > positions {
            continue;
        }
        for slots in [1, 2, 4, 8, 32] {
            let mut cached = Cached::new(&module, slots, slots * (behind + STEPS as u32 + 32))?;
            let prompt: Vec<u32> = (0..behind).map(token).collect();
            for slot in 0..slots {
                cached.start(Slot(slot), slot)?;
                for part in prompt.chunks(64) {
                    cached.step(&[Chunk { slot: Slot(slot), tokens: part, rows: Rows::None }])?;
                }
            }
            let (mut times, mut executed, mut all) = (Vec::new(), 0, 0);
            for step in 0..STEPS as u32 {
                let next = [token(step)];
                let chunks: Vec<Chunk<'_>> = (0..slots)
                    .map(|slot| Chunk { slot: Slot(slot), tokens: &next, rows: Rows::Last })
                    .collect();
                let started = Instant::now();
                let outputs = cached.step(&chunks)?;
                times.push(started.elapsed());
                executed += outputs.gates.iter().flatten().filter(|gate| **gate != 0).count();
                all += outputs.gates.iter().flatten().count();
            }
            let ms = median(times);
            let share = executed as f64 / all.max(1) as f64;
            println!("{behind:6} {slots:6} {ms:10.3} {:16.0} {share:15.2}", f64::from(slots) * 1e3 / ms);
        }
        let session = Session::of_module(&module)?;
        let mut whole = Recompute::new(session, &model, 1)?;
        whole.start(Slot(0), 0)?;
        let prompt: Vec<u32> = (0..behind).map(token).collect();
        whole.step(&[Chunk { slot: Slot(0), tokens: &prompt, rows: Rows::None }])?;
        let mut times = Vec::new();
        for step in 0..8 {
            let next = [token(step)];
            let started = Instant::now();
            whole.step(&[Chunk { slot: Slot(0), tokens: &next, rows: Rows::Last }])?;
            times.push(started.elapsed());
        }
        println!("{behind:6} {:>6} {:10.3}  (the whole prefix again)", 1, median(times));
    }
    Ok(())
}
