//! A whole model and a single layer on the host, in the three forms of `skipc bench`, under criterion.
//!
//! ```text
//! cargo bench --bench forms
//! cargo bench --bench forms -- skip_ffn
//! ```
//!
//! Each form runs by itself here, one after the other, so that criterion can compare it with what it was before a
//! change. Ratios between forms are better taken by `skipc bench`, in which forms take turns. Outputs of the forms are
//! compared before they are timed.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use skipc::bench::{Bench, Subject};
use skipc::driver::pipeline::{Request, Variant};
use skipc::driver::trace::Trace;
use skipc::frontend::layer::Layer;
use skipc::frontend::spec;
use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::node::Block;
use skipc::frontend::weights::Weights;
use skipc::frontend::weights::drawn::RANDOM_SEED;
use skipc_runtime::Batch;

const DENSITIES: [f64; 3] = [0.125, 0.25, 1.0];

/// One: what a form costs, and not how well a machine's cores share it.
const THREADS: usize = 1;

const SAMPLES: usize = 20;

/// A feed-forward layer that tokens skip, with next to nothing around it: a vocabulary of 32.
const SKIP_FFN: &str = r#"
[model]
name = "skip_ffn"
vocab_size = 32
d_model = 512
max_positions = 2048
norm = "rmsnorm"
positions = "none"
tie_embeddings = true

[block.sparse]
skip = { router = "gumbel", density = 0.25 }
layers = [{ kind = "ffn", d_ff = 2048, activation = "gelu" }]

[[stack]]
blocks = ["sparse"]
"#;

/// Inner size of the model's first feed-forward layer.
fn d_ff(model: &Model) -> usize {
    let mut layers = model.blocks.iter().flat_map(Block::layers);
    let inner = layers.find_map(|layer| match &layer.layer {
        Layer::Ffn(ffn) => Some(ffn.d_ff),
        _ => None,
    });
    inner.unwrap_or(0)
}

fn bench_model(criterion: &mut Criterion, model: &Model, tokens: u32) {
    let fail = |failure: skipc::Error| -> ! { panic!("{}: {}", model.name, failure.diagnostics) };
    let weights = Weights::drawn(model, RANDOM_SEED)
        .map_err(skipc::Error::from)
        .unwrap_or_else(|failure| fail(failure));
    let (of, trace) = ((model, &weights), &mut Trace::silent());
    let mut forms =
        Bench::of_model(of, &Variant::ALL, tokens, THREADS, trace).unwrap_or_else(|failure| fail(failure));
    let mut group = criterion.benchmark_group(&model.name);
    group
        .sample_size(SAMPLES)
        .warm_up_time(Duration::from_secs(1))
        .throughput(Throughput::Elements(tokens.into()));
    for density in DENSITIES {
        let (batches, _) = forms.prepare(density).unwrap_or_else(|failure| fail(failure));
        for subject in forms.subjects() {
            let rows = (density * f64::from(tokens)).round();
            let size = format!("{rows}of{tokens}x{}x{}", model.stream.d_model, d_ff(model));
            let what = format!("density={density}/rows={size}/f32/threads={THREADS}");
            let mut next = batches.iter().cycle();
            group.bench_function(
                BenchmarkId::new(format!("cpu/{}", subject.form().name()), what),
                |bencher| {
                    bencher.iter(|| next.next().map(|batch| subject.run(batch)));
                },
            );
        }
    }
    group.finish();
}

fn kjv(criterion: &mut Criterion) {
    let model = spec::load("models/kjv-12l-d25.toml".as_ref()).expect("the example");
    bench_model(criterion, &model, 512);
}

fn skip_ffn(criterion: &mut Criterion) {
    let model = spec::model("skip_ffn", SKIP_FFN).expect("a model");
    bench_model(criterion, &model, 2048);
}

/// Times models beside each other: a group of these specs, whose names come first, on one sequence.
fn bench_texts(
    criterion: &mut Criterion,
    (group, size): (&str, &str),
    texts: [(&str, String); 2],
    tokens: u32,
) {
    const BOTH: usize = 2;
    let mut group = criterion.benchmark_group(group);
    group
        .sample_size(SAMPLES)
        .warm_up_time(Duration::from_secs(1))
        .throughput(Throughput::Elements(tokens.into()));
    for (name, text) in texts {
        let fail = |failure: skipc::Error| -> ! { panic!("{name}: {}", failure.diagnostics) };
        let model = spec::model(name, &text).expect("a model");
        let weights = Weights::drawn(&model, RANDOM_SEED).map_err(skipc::Error::from);
        let weights = weights.unwrap_or_else(|failure| fail(failure));
        let compiled = Subject::compile((&model, &weights), &Request::host(), BOTH, &mut Trace::silent());
        let mut subject = compiled.unwrap_or_else(|failure| fail(failure));
        let ids = (0..tokens).map(|idx| (idx * 37 + idx / 11) % 32).collect();
        let batch = Batch { tokens: ids, lengths: vec![tokens], ..Batch::default() };
        group.bench_function(format!("cpu/{name}/{tokens}x{size}/f32/threads={BOTH}"), |bencher| {
            bencher.iter(|| subject.run(&batch).unwrap_or_else(|failure| fail(failure)));
        });
    }
    group.finish();
}

/// A spec of a stack over one block `b`.
fn text_of(name: &str, tokens: u32, layers: &str, stack: &str) -> String {
    format!(
        "[model]\nname = \"{name}\"\nvocab_size = 32\nd_model = 512\nmax_positions = {tokens}\npositions = \"none\"\n\
         [block.b]\nlayers = [{layers}]\n[[stack]]\nblocks = [\"b\"]\n{stack}\n"
    )
}

/// A layer of 8 experts of which each token takes one, beside one feed-forward layer of their width: as much arithmetic.
fn experts(criterion: &mut Criterion) {
    const TOKENS: u32 = 2048;
    let size = "d_ff = 2048, activation = \"gelu\"";
    let of = |kind: &str| text_of("experts", TOKENS, &format!("{{ kind = {kind}, {size} }}"), "");
    let texts = [("dense", of("\"ffn\"")), ("one_of_8", of("\"experts\", experts = 8"))];
    bench_texts(criterion, ("experts", "512x2048"), texts, TOKENS);
}

/// A block that runs three times, for all tokens, two thirds and one third of them, beside the same for all: two thirds of
/// the arithmetic.
fn recursion(criterion: &mut Criterion) {
    const TOKENS: u32 = 512;
    let layers = "{ kind = \"attention\", heads = 8 }, { kind = \"ffn\", d_ff = 2048 }";
    let full = "repeat = 3\nshare = true";
    let thirds = format!(
        "{full}\nskip = {{ router = \"topk\", density = [1.0, {:?}, {:?}], nested = true, input = \"raw\", kv = \"active\" }}",
        2.0 / 3.0,
        1.0 / 3.0
    );
    let of = |stack: &str| text_of("recursion", TOKENS, layers, stack);
    let texts = [("full", of(full)), ("thirds", of(&thirds))];
    bench_texts(criterion, ("recursion", "512x2048"), texts, TOKENS);
}

criterion_group!(benches, kjv, skip_ffn, experts, recursion);
criterion_main!(benches);
