//! The command line of `skipc run` and `skipc-run`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use skipc_artifact::program::Purpose;

use crate::batch::{Batch, Decisions, Grid};
use crate::error::Error;
use crate::generate;
use crate::known_answer::{self, Verdict};
use crate::model::Model;
use crate::npy::{self, IntArray};
use crate::session::{Device, Options, Session};
use crate::threads::Threads;

/// Options of a run.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// The compiled model
    #[arg(value_name = "M.skp")]
    pub model: PathBuf,

    /// Token ids, [tokens] or [batch, tokens] of int32, int64 or uint8
    #[arg(long, value_name = "FILE.npy")]
    pub tokens: Option<PathBuf>,

    /// How many tokens of each row count, [batch]; the rest is padding, and its logits are 0
    #[arg(long, value_name = "FILE.npy", requires = "tokens")]
    pub lengths: Option<PathBuf>,

    /// Text to begin with, for models of bytes
    #[arg(long, value_name = "TEXT", conflicts_with = "tokens")]
    pub prompt: Option<String>,

    /// Continue by this many tokens, always the likeliest
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<u32>,

    /// Write the logits, f32 [batch, tokens, vocabulary]
    #[arg(long, value_name = "OUT.npy")]
    pub logits: Option<PathBuf>,

    /// Write the decisions, uint8 [routers, batch, tokens] in model order
    #[arg(long, value_name = "OUT.npy")]
    pub routing_out: Option<PathBuf>,

    /// Take the decisions from this file instead of the routers
    #[arg(long, value_name = "FILE.npy")]
    pub routing: Option<PathBuf>,

    /// Where to run
    #[arg(long, value_enum, default_value_t = DeviceArg::Cpu)]
    pub device: DeviceArg,

    /// Threads on the CPU; as many as it runs at once by default
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,

    /// Fill memory with NaN before the run and look for stray writes after each kernel (slow)
    #[arg(long)]
    pub checked: bool,

    /// Replay the known answers in the artefact instead of running tokens
    #[arg(long, conflicts_with_all = ["tokens", "prompt", "max_new_tokens", "logits", "routing", "routing_out"])]
    pub self_test: bool,

    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// Names of devices on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceArg {
    /// The host's processor
    Cpu,
    /// The first NVIDIA GPU
    Cuda,
}

impl From<DeviceArg> for Device {
    fn from(arg: DeviceArg) -> Device {
        match arg {
            DeviceArg::Cpu => Device::Cpu,
            DeviceArg::Cuda => Device::Cuda,
        }
    }
}

/// Runs the command; what it prints goes to `out`. Gives the decisions of its last step.
///
/// # Errors
///
/// See [`Error`]; [`Error::exit_code`] says how the process should end.
pub fn run(args: &RunArgs, out: &mut dyn Write) -> Result<Decisions, Error> {
    if args.self_test {
        return self_test(args, out);
    }
    if args.tokens.is_none() && args.prompt.is_none() {
        return Err(Error::Usage("give `--tokens FILE.npy`, `--prompt TEXT` or `--self-test`".into()));
    }
    let per_token = args.logits.is_some() || args.routing_out.is_some() || args.routing.is_some();
    if args.max_new_tokens.is_some() && per_token {
        let reason = "`--max-new-tokens` generates; leave out `--logits`, `--routing` and `--routing-out`";
        return Err(Error::Usage(reason.into()));
    }
    let model = Model::open(&args.model)?;
    let threads = args.threads.unwrap_or_else(Threads::available);
    let purpose = if args.max_new_tokens.is_some() { Purpose::Generate } else { Purpose::Score };
    let options = Options { threads, checked: args.checked, purpose, ..Options::default() };
    let mut session = Session::new(&model, args.device.into(), options)?;
    match (&args.prompt, &args.tokens) {
        (Some(text), _) => {
            let tokens = generate::bytes_of(text, session.program().layout.vocab_size)?;
            match args.max_new_tokens {
                Some(count) => continue_text(&mut session, text, &tokens, count, out),
                None => run_grid(args, &mut session, grid_of_row(tokens.len()), tokens, out),
            }
        }
        (None, Some(path)) => {
            let array = npy::read_ints(path, &[1, 2])?;
            let (grid, tokens) = read_batch(path, &array, args.lengths.as_deref())?;
            match args.max_new_tokens {
                Some(count) => continue_rows(&mut session, &grid, &tokens, count, out),
                None => run_grid(args, &mut session, grid, tokens, out),
            }
        }
        (None, None) => Ok(Decisions::default()),
    }
}

/// Replays the known answers; a table goes to `out`.
fn self_test(args: &RunArgs, out: &mut dyn Write) -> Result<Decisions, Error> {
    let model = Model::open(&args.model)?;
    let threads = args.threads.unwrap_or_else(Threads::available);
    let options = Options { threads, checked: args.checked, ..Options::default() };
    let verdicts = known_answer::self_test(&model, args.device.into(), options)?;
    let failed = verdicts.iter().filter(|verdict| !verdict.ok).count();
    if args.json {
        let rows: Vec<_> = verdicts
            .iter()
            .map(|verdict| {
                serde_json::json!({
                    "purpose": verdict.purpose,
                    "case": verdict.case,
                    "flips": verdict.flips,
                    "max_error": verdict.max_error,
                    "relative_rms": verdict.relative_rms,
                    "ok": verdict.ok,
                })
            })
            .collect();
        let summary = serde_json::json!({"ok": failed == 0, "known_answers": rows});
        print(out, format_args!("{summary}\n"))?;
    } else {
        for Verdict { purpose, case, flips, max_error, relative_rms, ok } in &verdicts {
            let word = if *ok { "ok" } else { "WRONG" };
            print(
                out,
                format_args!(
                    "{purpose:8}  {case:5}  {flips} decisions differ, largest error {max_error:.2e}, \
                     relative rms {relative_rms:.2e}  {word}\n"
                ),
            )?;
        }
    }
    match failed {
        0 => Ok(Decisions::default()),
        _ => Err(Error::SelfTest { failed, of: verdicts.len() }),
    }
}

fn grid_of_row(width: usize) -> Grid {
    Grid { lengths: vec![u32::try_from(width).unwrap_or(u32::MAX)], width }
}

/// One run: logits and decisions to files, a summary to `out`.
fn run_grid(
    args: &RunArgs,
    session: &mut Session,
    grid: Grid,
    tokens: Vec<u32>,
    out: &mut dyn Write,
) -> Result<Decisions, Error> {
    let routers = session.program().layout.io.gates.len();
    let routing = match &args.routing {
        Some(path) => Some(read_routing(path, &grid, routers)?),
        None => None,
    };
    let outputs = session.run(&Batch { tokens, lengths: grid.lengths.clone(), routing })?;
    let (batch, width) = (grid.lengths.len() as u64, grid.width as u64);
    if let Some(path) = &args.logits {
        let vocab_size = session.program().layout.vocab_size;
        let array = grid.unpack(&outputs.logits, vocab_size as usize);
        npy::write(path, &[batch, width, u64::from(vocab_size)], &array)?;
    }
    if let Some(path) = &args.routing_out {
        let array: Vec<u8> = outputs.gates.iter().flat_map(|gates| grid.unpack(gates, 1)).collect();
        npy::write(path, &[routers as u64, batch, width], &array)?;
    }
    let decisions = Decisions::new(&session.program().layout, outputs.gates, &outputs.overflow);
    summarise(args, session, &grid, (&outputs.counts, &decisions.overflow), out)?;
    Ok(decisions)
}

fn summarise(
    args: &RunArgs,
    session: &Session,
    grid: &Grid,
    (counts, overflow): (&[u32], &[Option<u32>]),
    out: &mut dyn Write,
) -> Result<(), Error> {
    let n_tokens: u64 = grid.lengths.iter().map(|&length| u64::from(length)).sum();
    let executed: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    let asked = n_tokens * counts.len() as u64;
    let is_limited = overflow.iter().any(Option::is_some);
    if args.json {
        let mut summary = serde_json::json!({
            "device": session.describe(),
            "sequences": grid.lengths.len(),
            "tokens": n_tokens,
            "executed": counts,
        });
        if is_limited {
            summary["over_capacity"] = serde_json::json!(overflow);
        }
        return print(out, format_args!("{summary}\n"));
    }
    let share = if asked == 0 { 1.0 } else { executed as f64 / asked as f64 };
    print(
        out,
        format_args!(
            "{n_tokens} tokens in {} sequences on {}; {} routers executed {:.1} % of them\n",
            grid.lengths.len(),
            session.describe(),
            counts.len(),
            100.0 * share
        ),
    )?;
    if !is_limited {
        return Ok(());
    }
    let limited = overflow.iter().enumerate().filter_map(|(router, over)| Some((router, (*over)?)));
    let counts: Vec<String> = limited.map(|(router, over)| format!("{router}: {over}")).collect();
    print(out, format_args!("tokens over capacity, by router: {}\n", counts.join(", ")))
}

/// Prints the prompt and what follows, byte by byte as it comes.
fn continue_text(
    session: &mut Session,
    prompt: &str,
    tokens: &[u32],
    count: u32,
    out: &mut dyn Write,
) -> Result<Decisions, Error> {
    print(out, format_args!("{prompt}"))?;
    let mut written = Ok(());
    let continuation = generate::greedy(session, tokens, count, |token| {
        // The model has 256 tokens, so each is a byte; several may make one character.
        let byte = [u8::try_from(token).unwrap_or(b'?')];
        if written.is_ok() {
            written = out.write_all(&byte).and_then(|()| out.flush());
        }
    })?;
    written.map_err(stdout_failed)?;
    print(out, format_args!("\n"))?;
    Ok(Decisions::new(&session.program().layout, continuation.gates, &continuation.overflow))
}

/// Prints one line of new token ids for each row.
fn continue_rows(
    session: &mut Session,
    grid: &Grid,
    tokens: &[u32],
    count: u32,
    out: &mut dyn Write,
) -> Result<Decisions, Error> {
    let mut rest = tokens;
    let mut decisions = Decisions::default();
    for &length in &grid.lengths {
        let (prompt, after) = rest.split_at((length as usize).min(rest.len()));
        rest = after;
        let new = generate::greedy(session, prompt, count, |_| ())?;
        let words: Vec<_> = new.tokens.iter().map(ToString::to_string).collect();
        print(out, format_args!("{}\n", words.join(" ")))?;
        decisions = Decisions::new(&session.program().layout, new.gates, &new.overflow);
    }
    Ok(decisions)
}

fn print(out: &mut dyn Write, text: std::fmt::Arguments<'_>) -> Result<(), Error> {
    out.write_fmt(text).and_then(|()| out.flush()).map_err(stdout_failed)
}

fn stdout_failed(source: std::io::Error) -> Error {
    Error::Io { action: "write to", path: "the standard output".into(), source }
}

/// The tokens of an array, `[tokens]` or `[batch, tokens]`, without padding.
///
/// # Errors
///
/// Another shape, or numbers that are no tokens or lengths.
pub fn read_batch(path: &Path, array: &IntArray, lengths: Option<&Path>) -> Result<(Grid, Vec<u32>), Error> {
    let (batch, width) = match array.shape[..] {
        [width] => (1, width),
        [batch, width] => (batch, width),
        _ => return Err(shape_error(path, array, "one or two dimensions".into())),
    };
    // Rows without tokens take no bytes in a file, so their number is still unchecked.
    if width == 0 && batch > 1 << 20 {
        return Err(shape_error(path, array, "fewer empty rows".into()));
    }
    let lengths = match lengths {
        None => vec![width as u32; batch as usize],
        Some(path) => {
            let lengths = npy::read_ints(path, &[1])?;
            if lengths.shape != [batch] {
                return Err(shape_error(path, &lengths, format!("[{batch}], the rows of the tokens")));
            }
            to_u32(path, &lengths.data, width, format!("0 to {width}"))?
        }
    };
    let grid = Grid { lengths, width: width as usize };
    let tokens: Vec<i64> = grid.pack(&array.data).collect();
    let tokens = to_u32(path, &tokens, u64::from(u32::MAX), "a token id".into())?;
    Ok((grid, tokens))
}

/// Decisions without padding, `[routers][n_tokens]`.
///
/// # Errors
///
/// Another shape, or numbers other than 0 and 1.
pub fn read_routing(path: &Path, grid: &Grid, routers: usize) -> Result<Vec<Vec<u8>>, Error> {
    let array = npy::read_ints(path, &[3])?;
    let (batch, width) = (grid.lengths.len(), grid.width);
    if array.shape != [routers as u64, batch as u64, width as u64] {
        return Err(shape_error(path, &array, format!("[{routers}, {batch}, {width}]")));
    }
    if let Some(at) = array.data.iter().position(|decision| !(0..=1).contains(decision)) {
        return Err(value_error(path, array.data[at], at, "0 or 1".into()));
    }
    let decisions: Vec<u8> = array.data.iter().map(|&decision| u8::from(decision != 0)).collect();
    let mut routers = vec![Vec::new(); routers];
    let size = (batch * width).max(1);
    for (router, decisions) in routers.iter_mut().zip(decisions.chunks(size)) {
        *router = grid.pack(decisions).collect();
    }
    Ok(routers)
}

fn to_u32(path: &Path, numbers: &[i64], limit: u64, expected: String) -> Result<Vec<u32>, Error> {
    let small = |&number: &i64| u32::try_from(number).ok().filter(|&number| u64::from(number) <= limit);
    if let Some(at) = numbers.iter().position(|number| small(number).is_none()) {
        return Err(value_error(path, numbers[at], at, expected));
    }
    Ok(numbers.iter().filter_map(small).collect())
}

fn shape_error(path: &Path, array: &IntArray, expected: String) -> Error {
    Error::NpyShape { path: path.into(), found: array.shape.clone(), expected }
}

fn value_error(path: &Path, found: i64, at: usize, expected: String) -> Error {
    Error::NpyValue { path: path.into(), found: found.into(), at, expected }
}
