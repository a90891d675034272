//! The equivalence ladder: one artefact's model in every form that there is, on the same inputs.
//!
//! The judge is the lowered graph in f64. Decisions are forced to none, all and a random quarter of the tokens, then
//! left free; free decisions of another form are replayed in the judge, so that values are always compared under the
//! same decisions, and differing ones are counted apart.

use serde::Serialize;
use skipc_artifact::bundle;
use skipc_artifact::program::{Gate, Program, Purpose};
use skipc_artifact::section::SectionKind;
use skipc_artifact::target::{DType, Target};
use skipc_ir::interp::Batch;
use skipc_ir::{Graph, random_score, text};
use skipc_plan::Plan;
use skipc_plan::interp::{self, Mode, Tiling};
use skipc_runtime::{Device, Model, Options, Session, cuda};

use crate::reference::{self, Constants, Outcome};

/// Largest distance of an f32 logit from f64, as for whole models against the reference.
const F32_TOLERANCE: f64 = 2e-4;

/// Largest root mean square distance of bf16 logits from f64, relative to the logits' own. A coarse net for wrong
/// code: 16 times the unit roundoff of bf16. The sharp bound needs PyTorch's own error, which golden cases carry.
const BF16_TOLERANCE: f64 = 16.0 / 256.0;

/// Rows of a tile of the kernel interpreter: small and odd, so that short batches have several tiles and a tail.
const TILE_ROWS: u32 = 7;

/// One form of the model on one case.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Which decisions: `none`, `all`, `quarter` (forced) or `free`.
    pub case: String,
    /// What ran, such as `kernels bf16` or `cpu f32`.
    pub form: String,
    /// Decisions that differ from the judge's; only free ones can.
    pub flips: usize,
    /// Decisions compared.
    pub decisions: usize,
    /// Largest distance of a logit from the judge's under the same decisions.
    pub max_error: f64,
    /// Root mean square distance, relative to the judge's logits.
    pub relative_rms: f64,
    /// Whether it is within bounds.
    pub ok: bool,
}

/// What was compared, and what could not be.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// All comparisons.
    pub rows: Vec<Row>,
    /// Forms that this machine cannot run, with the reason.
    pub skipped: Vec<String>,
}

impl Report {
    /// Whether every comparison is within bounds.
    pub fn ok(&self) -> bool {
        self.rows.iter().all(|row| row.ok)
    }
}

/// Why the ladder could not be climbed at all.
#[derive(Debug, thiserror::Error)]
pub enum LadderError {
    /// The artefact is damaged, or the runtime refuses it.
    #[error(transparent)]
    Runtime(#[from] skipc_runtime::Error),
    /// A stage in the artefact cannot be read back.
    #[error("{stage}: {message}")]
    Stage {
        /// Which.
        stage: String,
        /// Why.
        message: String,
    },
}

/// Runs all forms of the artefact's model over the batch.
///
/// # Errors
/// If the artefact cannot be read; differences are rows of the report.
pub fn climb(model: &Model, batch: &Batch, threads: usize) -> Result<Report, LadderError> {
    let artifact = model.artifact();
    let programs: Vec<Program> = model
        .targets()
        .iter()
        .map(|target| bundle::read_program(artifact, target, Purpose::Score))
        .collect::<Result<_, _>>()
        .map_err(skipc_runtime::Error::from)?;
    let lowered = graph(model, "ir/lowered.sir")?;
    let legal = graph(model, "ir/legal.sir")?;
    let mut report = Report::default();
    let mut seen = Vec::new();
    for program in &programs {
        let bytes = bundle::read_constants(artifact, program).map_err(skipc_runtime::Error::from)?;
        let judge = Judge { graph: &lowered, constants: Constants { program, bytes }, batch };
        if !seen.contains(&program.dtype) {
            seen.push(program.dtype);
            let form = Form::Graph(&legal);
            judge.all_cases(&format!("passes {}", program.dtype), DType::F32, &mut report, |forced| {
                form.run(&judge, forced)
            })?;
            let plan = plan(model, program.dtype)?;
            judge.all_cases(&format!("kernels {}", program.dtype), program.dtype, &mut report, |forced| {
                Form::Plan(&plan).run(&judge, forced)
            })?;
        }
        code(model, program, &judge, threads, &mut report)?;
    }
    Ok(report)
}

/// The machine's own code, where the machine is there.
fn code(
    model: &Model,
    program: &Program,
    judge: &Judge<'_>,
    threads: usize,
    report: &mut Report,
) -> Result<(), LadderError> {
    let device = match &program.target {
        Target::Cpu => Device::Cpu,
        Target::Cuda(_) => match cuda::Gpu::first() {
            Ok(_) => Device::Cuda,
            Err(error) => {
                report.skipped.push(format!("{}: {error}", program.target));
                return Ok(());
            }
        },
    };
    let options = Options { threads, checked: true, ..Options::default() };
    let mut session = Session::new(model, device, options)?;
    if session.program().target != program.target {
        report.skipped.push(format!("{}: this GPU takes {}", program.target, session.program().target));
        return Ok(());
    }
    let form = format!("{} {}", program.target, program.dtype);
    judge.all_cases(&form, program.dtype, report, |forced| {
        let lengths = lengths(judge.batch);
        let tokens = judge.batch.tokens.iter().map(|token| *token as u32).collect();
        let routing = forced
            .map(|masks| masks.iter().map(|mask| mask.iter().map(|bit| u8::from(*bit)).collect()).collect());
        let outputs = session.run(&skipc_runtime::Batch { tokens, lengths, routing })?;
        Ok(Outcome {
            logits: outputs.logits.into_iter().map(f64::from).collect(),
            gates: outputs.gates.iter().map(|gate| gate.iter().map(|bit| *bit != 0).collect()).collect(),
            overflow: Vec::new(),
        })
    })
}

/// Lengths of the batch's sequences.
fn lengths(batch: &Batch) -> Vec<u32> {
    batch.sequences.chunk_by(|a, b| a == b).map(|sequence| sequence.len() as u32).collect()
}

struct Judge<'a> {
    graph: &'a Graph,
    constants: Constants<'a>,
    batch: &'a Batch,
}

enum Form<'a> {
    Graph(&'a Graph),
    Plan(&'a Plan),
}

impl Form<'_> {
    fn run(&self, judge: &Judge<'_>, forced: Option<&[Vec<bool>]>) -> Result<Outcome<f64>, LadderError> {
        match self {
            Form::Graph(graph) => {
                reference::run(graph, &judge.constants, judge.batch, forced).map_err(|error| {
                    LadderError::Stage { stage: "graph".to_owned(), message: error.to_string() }
                })
            }
            Form::Plan(plan) => run_plan(plan, &judge.constants, judge.batch, forced),
        }
    }
}

/// Runs the planned kernels on the kernel interpreter.
///
/// # Errors
/// What the interpreter finds wrong with the plan.
pub fn run_plan(
    plan: &Plan,
    constants: &Constants<'_>,
    batch: &Batch,
    forced: Option<&[Vec<bool>]>,
) -> Result<Outcome<f64>, LadderError> {
    let places = plan.constants.iter().map(|constant| &constant.constant);
    let slices: Vec<Vec<u8>> = places
        .map(|place| constants.bytes[place.offset as usize..(place.offset + place.bytes()) as usize].to_vec())
        .collect();
    let words = |ints: &[i64]| ints.iter().map(|int| *int as u32).collect();
    let batch = interp::Batch {
        tokens: words(&batch.tokens),
        positions: words(&batch.positions),
        sequences: words(&batch.sequences),
        forced: forced.map(<[Vec<bool>]>::to_vec),
    };
    let run = interp::run_layout(
        &plan.kernels,
        &plan.layout,
        &slices,
        &batch,
        (Mode::Arena, Tiling::of(TILE_ROWS)),
    );
    let outcome =
        run.map_err(|fault| LadderError::Stage { stage: "kernels".to_owned(), message: fault.to_string() })?;
    Ok(Outcome {
        logits: outcome.logits.into_iter().map(f64::from).collect(),
        gates: outcome.gates.into_iter().map(|gate| gate.mask).collect(),
        overflow: Vec::new(),
    })
}

impl Judge<'_> {
    fn all_cases(
        &self,
        form: &str,
        dtype: DType,
        report: &mut Report,
        mut run: impl FnMut(Option<&[Vec<bool>]>) -> Result<Outcome<f64>, LadderError>,
    ) -> Result<(), LadderError> {
        let n = self.batch.tokens.len();
        let gates = &self.constants.program.layout.io.gates;
        let masks = |decide: &dyn Fn(usize) -> bool| -> Vec<Vec<bool>> {
            let mask = |gate: &Gate| match gate {
                Gate::Constant(value) => vec![*value; n],
                Gate::Routed { mask, .. } => {
                    (0..n).map(|row| decide((*mask as usize).wrapping_mul(n).wrapping_add(row))).collect()
                }
            };
            gates.iter().map(mask).collect()
        };
        let quarter = |place: usize| random_score(1, 0, 0, place as u64) < 1 << 30;
        let forced = [("none", masks(&|_| false)), ("all", masks(&|_| true)), ("quarter", masks(&quarter))];
        for (case, masks) in &forced {
            let got = run(Some(masks))?;
            report.rows.push(self.compare(case, form, dtype, &got, masks)?);
        }
        let free = reference::run::<f64>(self.graph, &self.constants, self.batch, None)
            .map_err(|error| LadderError::Stage { stage: "graph".to_owned(), message: error.to_string() })?;
        let got = run(None)?;
        report.rows.push(self.compare("free", form, dtype, &got, &free.gates)?);
        Ok(())
    }

    /// Compares with the judge under the decisions that `got` took; `wanted` are those it should have taken.
    fn compare(
        &self,
        case: &str,
        form: &str,
        dtype: DType,
        got: &Outcome<f64>,
        wanted: &[Vec<bool>],
    ) -> Result<Row, LadderError> {
        let judge = reference::run::<f64>(self.graph, &self.constants, self.batch, Some(&got.gates))
            .map_err(|error| LadderError::Stage { stage: "graph".to_owned(), message: error.to_string() })?;
        let pairs = got.gates.iter().flatten().zip(wanted.iter().flatten());
        let flips = pairs.filter(|(got, wanted)| got != wanted).count();
        let decisions = wanted.iter().map(Vec::len).sum();
        let (mut max_error, mut squares, mut size) = (0.0f64, 0.0, 0.0);
        for (got, wanted) in got.logits.iter().zip(&judge.logits) {
            let error = (got - wanted).abs();
            // A NaN is the worst of all errors, and stays.
            max_error = if error <= max_error { max_error } else { error };
            squares += error * error;
            size += wanted * wanted;
        }
        let relative_rms = if size > 0.0 { (squares / size).sqrt() } else { squares.sqrt() };
        let values_ok = match dtype {
            DType::Bf16 => relative_rms <= BF16_TOLERANCE,
            _ => max_error <= F32_TOLERANCE,
        };
        let flips_ok = flips == 0 || (dtype == DType::Bf16 && case == "free");
        let ok = values_ok && flips_ok && got.logits.len() == judge.logits.len();
        Ok(Row {
            case: case.to_owned(),
            form: form.to_owned(),
            flips,
            decisions,
            max_error,
            relative_rms,
            ok,
        })
    }
}

fn stage_text<'a>(model: &'a Model, name: &str, kind: SectionKind) -> Result<&'a str, LadderError> {
    let bytes = model.artifact().section(name, kind).map_err(skipc_runtime::Error::from)?;
    std::str::from_utf8(bytes)
        .map_err(|error| LadderError::Stage { stage: name.to_owned(), message: error.to_string() })
}

fn graph(model: &Model, name: &str) -> Result<Graph, LadderError> {
    text::parse(stage_text(model, name, SectionKind::Ir)?).map_err(|errors| LadderError::Stage {
        stage: name.to_owned(),
        message: errors.first().map(ToString::to_string).unwrap_or_default(),
    })
}

fn plan(model: &Model, dtype: DType) -> Result<Plan, LadderError> {
    let name = format!("plan/{dtype}.json");
    let plan: Plan = serde_json::from_str(stage_text(model, &name, SectionKind::Plan)?)
        .map_err(|error| LadderError::Stage { stage: name.clone(), message: error.to_string() })?;
    skipc_plan::verify(&plan).map_err(|errors| LadderError::Stage {
        stage: name,
        message: errors.first().map(ToString::to_string).unwrap_or_default(),
    })?;
    Ok(plan)
}
