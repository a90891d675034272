//! Known-answer tests: inputs in the artefact with what the model has to make of them, so that a machine can tell by
//! itself whether it computes the model right.
//!
//! Section `known-answer/FUNCTION/TYPE.safetensors` for the programs with layers of that type. Tensors: `tokens` u32 `[n]` or
//! `rows` f32 `[n, columns]`, `lengths` u32 `[sequences]`, and for each case `CASE.gates` u8
//! `[routers, n]` and `CASE.logits` f32 `[n, vocab]`. The case `free` leaves the routers free; in the others the gates
//! are forced.

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use skipc_artifact::program::{GENERATE, PAGE_ROWS, Program, SCORE, STEP};
use skipc_artifact::section::SectionKind;
use skipc_artifact::target::DType;

use crate::batch::Batch;
use crate::decode::{Cached, Chunk, Decoder, Rows, Slot};
use crate::device::Device;
use crate::distance::{Bound, Distance};
use crate::error::Error;
use crate::model::Model;
use crate::module::Module;
use crate::options::Options;
use crate::session::Session;

/// The tensor of the section that holds rows in place of token ids.
const ROWS_TENSOR: &str = "rows";

/// The case in which the routers decide.
pub const FREE: &str = "free";

/// Tokens with the answers to them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KnownAnswers {
    /// Token ids, all sequences one after the other; none for a model that takes rows.
    pub tokens: Vec<u32>,
    /// The rows of such a model, `[n, columns]`.
    pub rows: Vec<f32>,
    /// Length of each sequence.
    pub lengths: Vec<u32>,
    /// One for each way to decide.
    pub cases: Vec<Case>,
}

/// What the model has to make of the tokens under some decisions.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Which decisions; [`FREE`] if they are the routers' own.
    pub name: String,
    /// `[routers][n]`.
    pub gates: Vec<Vec<u8>>,
    /// `[n, vocab]`, row by row.
    pub logits: Vec<f32>,
}

/// How one case came out.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Which function.
    pub function: String,
    /// Which decisions.
    pub case: String,
    /// Decisions that differ.
    pub flips: usize,
    /// Largest distance of a logit.
    pub max_error: f64,
    /// Root mean square distance, relative to the logits.
    pub relative_rms: f64,
    /// Whether it is within the bound of the program's type.
    pub ok: bool,
}

/// The name of the section with the answers for a function of programs of this type.
#[must_use]
pub fn section_name(function: &str, dtype: DType) -> String {
    format!("known-answer/{function}/{dtype}.safetensors")
}

impl KnownAnswers {
    /// How many tokens there are.
    fn n_tokens(&self) -> usize {
        self.lengths.iter().map(|&length| length as usize).sum()
    }

    /// The bytes of the section.
    ///
    /// # Errors
    ///
    /// Answers that do not fit the tokens: a fault of who made them.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let n = self.n_tokens();
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let bytes =
            |numbers: &[f32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
        let input = match self.rows.len().checked_div(n) {
            None | Some(0) => ("tokens".to_owned(), Dtype::U32, vec![n], words(&self.tokens)),
            Some(cols) => (ROWS_TENSOR.to_owned(), Dtype::F32, vec![n, cols], bytes(&self.rows)),
        };
        let lengths = ("lengths".to_owned(), Dtype::U32, vec![self.lengths.len()], words(&self.lengths));
        let mut tensors = vec![input, lengths];
        for Case { name, gates, logits } in &self.cases {
            tensors.push((format!("{name}.gates"), Dtype::U8, vec![gates.len(), n], gates.concat()));
            let shape = vec![n, logits.len() / n.max(1)];
            tensors.push((format!("{name}.logits"), Dtype::F32, shape, bytes(logits)));
        }
        let broken = |error: safetensors::SafeTensorError| Error::KnownAnswer { problem: error.to_string() };
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            TensorView::new(*dtype, shape.clone(), bytes).map(|view| (name.as_str(), view))
        });
        let views: Vec<_> = views.collect::<Result<_, _>>().map_err(broken)?;
        serialize(views, None).map_err(broken)
    }

    /// Reads the bytes of a section.
    ///
    /// # Errors
    ///
    /// Bytes that [`KnownAnswers::encode`] does not make.
    pub fn decode(bytes: &[u8]) -> Result<KnownAnswers, Error> {
        let broken = |problem: String| Error::KnownAnswer { problem };
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| broken(error.to_string()))?;
        let tensor = |name: &str, dtype: Dtype| {
            let tensor = tensors.tensor(name).map_err(|error| broken(error.to_string()))?;
            if tensor.dtype() != dtype {
                return Err(broken(format!("`{name}` is not of type {dtype:?}")));
            }
            Ok(tensor)
        };
        let words = |name: &str| -> Result<Vec<u32>, Error> {
            let tensor = tensor(name, Dtype::U32)?;
            Ok(tensor.data().as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
        };
        let numbers = |name: &str| -> Result<Vec<f32>, Error> {
            let numbers =
                tensor(name, Dtype::F32)?.data().as_chunks().0.iter().map(|word| f32::from_le_bytes(*word));
            let numbers: Vec<f32> = numbers.collect();
            match numbers.iter().all(|number| number.is_finite()) {
                true => Ok(numbers),
                false => Err(broken(format!("`{name}` has numbers that are not finite"))),
            }
        };
        let (tokens, rows) = match tensors.names().contains(&ROWS_TENSOR) {
            true => (Vec::new(), numbers(ROWS_TENSOR)?),
            false => (words("tokens")?, Vec::new()),
        };
        let mut answers = KnownAnswers { tokens, rows, lengths: words("lengths")?, cases: Vec::new() };
        let n = answers.n_tokens();
        let mut names: Vec<&str> =
            tensors.names().into_iter().filter_map(|name| name.strip_suffix(".logits")).collect();
        names.sort_unstable();
        for name in names {
            let of_logits = format!("{name}.logits");
            let logits = tensor(&of_logits, Dtype::F32)?;
            let gates = tensor(&format!("{name}.gates"), Dtype::U8)?;
            if logits.shape().first() != Some(&n) || gates.shape().get(1) != Some(&n) {
                return Err(broken(format!("`{name}` is not about {n} tokens")));
            }
            answers.cases.push(Case {
                name: name.to_owned(),
                gates: gates.data().chunks(n.max(1)).map(<[u8]>::to_vec).collect(),
                logits: numbers(&of_logits)?,
            });
        }
        if n == 0 || answers.cases.is_empty() {
            return Err(broken("there is no case".to_owned()));
        }
        Ok(answers)
    }

    /// Runs every case on a session.
    ///
    /// # Errors
    ///
    /// What [`Session::run`] says; wrong results are verdicts.
    pub fn run(&self, session: &mut Session) -> Result<Vec<Verdict>, Error> {
        let mut verdicts = Vec::new();
        for case in &self.cases {
            let routing = (case.name != FREE).then(|| case.gates.clone());
            let (tokens, rows, lengths) = (self.tokens.clone(), self.rows.clone(), self.lengths.clone());
            let outputs = session.run(&Batch { tokens, rows, lengths, routing, experts: None })?;
            let of = (session.function_name(), session.program());
            verdicts.push(verdict(of, case, &outputs.logits, &outputs.gates));
        }
        Ok(verdicts)
    }

    /// Runs every case from caches: the first token of each sequence, then all others.
    ///
    /// # Errors
    ///
    /// What [`Cached`] says; wrong results are verdicts.
    fn run_in_steps(&self, module: &Module) -> Result<Vec<Verdict>, Error> {
        let n_slots = self.lengths.len() as u32;
        let pages: u32 = self.lengths.iter().map(|length| length.next_multiple_of(PAGE_ROWS)).sum();
        let mut verdicts = Vec::new();
        for case in &self.cases {
            let mut decoder = Cached::new(module, n_slots, pages)?;
            (0..n_slots).try_for_each(|slot| decoder.start(Slot(slot), slot))?;
            let n_routers = case.gates.len();
            let width = case.logits.len() / self.tokens.len().max(1);
            let (mut logits, mut gates) = (vec![f32::NAN; case.logits.len()], vec![Vec::new(); n_routers]);
            gates.iter_mut().for_each(|gate| gate.resize(self.tokens.len(), u8::MAX));
            for is_first in [true, false] {
                let mut begin = 0;
                for (slot, length) in (0..).zip(&self.lengths) {
                    let end = begin + *length as usize;
                    let first = end.min(begin + 1);
                    let rows = if is_first { begin..first } else { first..end };
                    begin = end;
                    if rows.is_empty() {
                        continue;
                    }
                    let forced: Vec<Vec<u8>> =
                        case.gates.iter().map(|gate| gate[rows.clone()].to_vec()).collect();
                    let forced = (case.name != FREE).then_some(forced.as_slice());
                    let tokens = &self.tokens[rows.clone()];
                    let chunk = Chunk { slot: Slot(slot), tokens, rows: Rows::All };
                    let outputs = decoder.step_forced(&[chunk], forced)?;
                    if outputs.logits.len() == rows.len() * width {
                        logits[rows.start * width..rows.end * width].copy_from_slice(&outputs.logits);
                    }
                    for (all, gate) in gates.iter_mut().zip(outputs.gates) {
                        all[rows.clone()].copy_from_slice(&gate);
                    }
                }
            }
            verdicts.push(verdict((STEP, module.program()), case, &logits, &gates));
        }
        Ok(verdicts)
    }
}

/// Replays the known answers for a device, for every function that has some, that which scores first.
///
/// # Errors
///
/// An artefact without known answers, or what [`Session`] says; wrong results are verdicts.
pub fn self_test(model: &Model, device: Device, options: Options) -> Result<Vec<Verdict>, Error> {
    let module = Module::load(model, device, options)?;
    let (mut session, dtype) = (Session::of_module(&module)?, module.program().dtype);
    let mut functions: Vec<&String> = module.program().functions.keys().collect();
    functions.sort_by_key(|name| (*name != SCORE, *name));
    let mut verdicts = Vec::new();
    for function in functions {
        if function == STEP {
            continue;
        }
        session.choose(function)?;
        let name = section_name(function, dtype);
        if !model.artifact().has(&name) {
            return Err(Error::KnownAnswer { problem: format!("the artefact has no section `{name}`") });
        }
        let answers = KnownAnswers::decode(model.artifact().section(&name, SectionKind::KnownAnswer)?)?;
        verdicts.extend(answers.run(&mut session)?);
        // Steps decide as what generates does, which is another function only where scoring looks ahead.
        let is_causal = function == GENERATE || model.artifact().manifest().promises.causal;
        if is_causal && module.program().functions.contains_key(STEP) {
            verdicts.extend(answers.run_in_steps(&module)?);
        }
    }
    Ok(verdicts)
}

fn verdict((function, program): (&str, &Program), case: &Case, logits: &[f32], gates: &[Vec<u8>]) -> Verdict {
    let wanted = case.gates.iter().flatten();
    let flips = gates.iter().flatten().zip(wanted).filter(|(got, wanted)| got != wanted).count();
    let distance = Distance::between(logits, &case.logits);
    let shapes_ok = logits.len() == case.logits.len() && gates.len() == case.gates.len();
    Verdict {
        function: function.to_owned(),
        case: case.name.clone(),
        flips,
        max_error: distance.max_error(),
        relative_rms: distance.relative_rms(),
        ok: distance.is_within(Bound::of(program.dtype)) && shapes_ok && flips == 0,
    }
}
