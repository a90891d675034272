#![doc = include_str!("ARCHITECTURE.md")]
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
pub mod codes;
pub mod cost;
pub mod diagnostic;
pub mod driver;
pub mod error;
pub mod frontend;
pub mod report;
#[cfg(feature = "cli")]
pub mod serve;
pub mod train;
pub mod verify;

pub use error::{Error, ErrorKind};

use driver::pack;
use driver::pipeline::{self, Request};
use driver::trace::Trace;
use frontend::spec::model::Model;
use frontend::weights::Weights;

/// Compiles a model for every target of the request and returns the artefact: the bytes that `skipc compile` writes and
/// `skipc_runtime::Model` loads.
///
/// Equal models, weights and requests give equal bytes.
///
/// ```
/// use skipc::driver::pipeline::Request;
/// use skipc::frontend::spec;
/// use skipc::frontend::weights::Weights;
/// use skipc_runtime::{Batch, Device, Options, Session};
///
/// let text = r#"
/// [model]
/// name = "tiny"
/// vocab_size = 8
/// d_model = 16
/// max_positions = 32
/// norm = "rmsnorm"
/// positions = "rope"
/// tie_embeddings = true
///
/// [block.a]
/// skip = { router = "gumbel", density = 0.25 }
/// layers = [{ kind = "ffn", d_ff = 32, activation = "swiglu" }]
///
/// [[stack]]
/// blocks = ["a", "a"]
/// "#;
/// let model = spec::model("tiny.toml", text)?;
/// let weights = Weights::drawn(&model, 1)?;
/// let artefact = skipc::compile(&model, &weights, &Request::host())?;
///
/// let artefact = skipc_runtime::Model::from_bytes(&artefact)?;
/// let mut session = Session::new(&artefact, Device::Cpu, Options::default())?;
/// let outputs = session.run(&Batch::of_sequence(vec![1, 5, 2]))?;
/// assert_eq!(outputs.logits.len(), 3 * 8);
/// assert_eq!(outputs.gates.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// What the targets cannot do ([`ErrorKind::Unsupported`]), or a fault of skipc ([`ErrorKind::Internal`]). What is wrong
/// with a spec or its weights is found when they are read.
pub fn compile(model: &Model, weights: &Weights, request: &Request) -> Result<Vec<u8>, Error> {
    let compiled = pipeline::compile(model, request, &mut Trace::silent())?;
    pack::to_bytes((model, weights), request, compiled)
}
