//! The constants of the cost model, from differences between models that differ in one thing.

use skipc_runtime::Batch;

use crate::subject::{Failed, Subject, batch, shortest};

const ROUNDS: usize = 41;

/// Tokens of a step.
const N: f64 = 512.0;

fn spec(d: u32, positions: &str, skip: &str, layers: &str, repeat: u32) -> String {
    let theta = if positions == "rope" { "rope_theta = 10000.0\n" } else { "" };
    format!(
        "[model]\nname = \"bench\"\nvocab_size = 32\nd_model = {d}\nmax_positions = 1024\nnorm = \"rmsnorm\"\n\
         norm_eps = 1e-5\npositions = \"{positions}\"\n{theta}tie_embeddings = true\n\n[block.b]\n{skip}\n\
         layers = [{layers}]\n\n[[stack]]\nblocks = [\"b\"]\nrepeat = {repeat}\n"
    )
}

fn ffn(d_ff: u32, activation: &str) -> String {
    format!("{{ kind = \"ffn\", d_ff = {d_ff}, activation = \"{activation}\" }}")
}

const ATTENTION: &str = "{ kind = \"attention\", heads = 4, kv_heads = 4, head_dim = 64 }";

/// By how much `more` takes longer than `less`, in nanoseconds.
fn difference(less: (&str, &Batch), more: (&str, &Batch)) -> Result<f64, Failed> {
    let (mut a, mut b) = (Subject::of_text(less.0)?, Subject::of_text(more.0)?);
    let times = shortest(&mut [(&mut a, less.1), (&mut b, more.1)], ROUNDS)?;
    Ok(times[1] - times[0])
}

/// Prints what `passes/src/rewrite/cost/target.rs` should say of this machine.
pub(crate) fn run() -> Result<(), Failed> {
    let (one, all) = (batch(1, 1), batch(1, N as u32));
    // Kernels that have next to nothing to do.
    let tiny = |repeat| spec(16, "none", "", &ffn(16, "relu"), repeat);
    let n_steps = Subject::of_text(&tiny(24))?.n_steps() - Subject::of_text(&tiny(4))?.n_steps();
    let launch = difference((&tiny(4), &one), (&tiny(24), &one))? / n_steps as f64;
    println!("launch: {launch:.0}  (one token, 16 columns, {n_steps} kernels)");

    let wide = |d_ff, activation| spec(256, "none", "", &ffn(d_ff, activation), 4);
    let macs = 4.0 * 2.0 * 256.0 * 1024.0 * N;
    let gemm = difference((&wide(1024, "relu"), &all), (&wide(2048, "relu"), &all))? / macs;
    println!("gemm_mac: {gemm:.4}  (512 tokens, 256 columns)");
    let elements = 4.0 * 1024.0 * N;
    let exp = difference((&wide(1024, "relu"), &all), (&wide(1024, "gelu"), &all))? / elements;
    println!("exp: {exp:.2}");

    let attention = |positions| spec(256, positions, "", ATTENTION, 4);
    let short = batch(8, N as u32 / 8);
    let text = attention("none");
    let pairs = 4.0 * 256.0 * N * (N - N / 8.0);
    println!("attention_mac: {:.4}", difference((&text, &short), (&text, &all))? / pairs);
    // Sequences of one token, so that attention has next to nothing to do.
    let (plain, turned) = (spec(256, "none", "", ATTENTION, 8), spec(256, "rope", "", ATTENTION, 8));
    let single = batch(N as u32, 1);
    let rope = difference((&plain, &single), (&turned, &single))? - 16.0 * launch;
    println!("element: {:.3}  (rotary embedding: two reads and a write)", rope / (16.0 * 256.0 * N * 3.0));

    let routed = |router: &str| {
        let skip = format!("skip = {{ router = \"{router}\", density = 1.0 }}");
        spec(256, "none", if router == "always" { "" } else { &skip }, &ffn(256, "relu"), 4)
    };
    let forced = Batch { routing: Some(vec![vec![1; N as usize]; 4]), ..all.clone() };
    let logits = difference((&routed("random"), &forced), (&routed("gumbel"), &forced))? - 4.0 * 2.0 * launch;
    println!("dot_mac: {:.4}", logits / (4.0 * 2.0 * 256.0 * N));
    let moved = difference((&routed("always"), &all), (&routed("random"), &forced))? - 4.0 * launch;
    println!("gathered: {:.3}  (read twice, written once)", moved / (4.0 * 3.0 * 256.0 * N));
    Ok(())
}
