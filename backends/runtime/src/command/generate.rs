//! `skipc generate` and `skipc-run generate`: continues texts and sequences of tokens.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{ArgGroup, Args};
use skipc_artifact::program::{Function, Head, SCORE};

use super::console::Console;
use super::skips::Skips;
use super::trust::TrustArgs;
use crate::choices::Choices;
use crate::decode::beam::{self, Search};
use crate::decode::text::TextStream;
use crate::decode::{
    self, Decoder, Drafts, Engine, EngineOptions, Event, Finish, Handle, LanguageFiles, Metered, Request,
    Sampling, Speculation, Tokenizer, metered,
};
use crate::device::Device;
use crate::error::Error;
use crate::inputs::{Room, Sequences, read_text};
use crate::model::Model;
use crate::module::Module;
use crate::npy;
use crate::options::Options;
use crate::threads::Threads;
use crate::words::counted;

/// Longest prompt that is read from a file, in bytes: more than any model has positions.
const PROMPT_LIMIT: u64 = 1 << 26;

/// Most rows that are continued at a time.
const SLOTS: u32 = 32;

/// Options of generation.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("begin").required(true).args(["prompt", "prompt_file", "tokens"]))]
pub struct GenerateArgs {
    /// The compiled model. Its machine code becomes part of this process: open only files that you trust as programs
    #[arg(value_name = "M.skp")]
    pub model: PathBuf,

    /// Whose artefacts run.
    #[command(flatten)]
    pub trust: TrustArgs,

    /// Text to continue
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,

    /// File with text to continue
    #[arg(long, value_name = "FILE")]
    pub prompt_file: Option<PathBuf>,

    /// Token ids to continue, `[tokens]` or `[batch, tokens]` of int32, int64 or uint8; prints new ids, a line a row
    #[arg(long, value_name = "T.npy")]
    pub tokens: Option<PathBuf>,

    /// How many tokens of each row count, `[batch]`
    #[arg(long, value_name = "L.npy", requires = "tokens", conflicts_with_all = ["prompt", "prompt_file"])]
    pub lengths: Option<PathBuf>,

    /// The tokenizer.json of the model, or the folder that has it; beside the artefact by default. A model of 256 tokens
    /// needs none: they are bytes
    #[arg(long, value_name = "FILE|DIR")]
    pub tokenizer: Option<PathBuf>,

    /// Make the text a message of a user, by the model's chat template, and print the answer alone
    #[arg(long, conflicts_with = "tokens")]
    pub chat: bool,

    /// Chat template (Jinja); by default that in tokenizer_config.json, beside the tokenizer or the artefact
    #[arg(long, value_name = "FILE", requires = "chat")]
    pub chat_template: Option<PathBuf>,

    /// Most tokens to add
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub max_new_tokens: u32,

    /// Divides the logits before a draw; 0 takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub temperature: f64,

    /// Draw among the K likeliest tokens; 0: among all
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub top_k: u32,

    /// Draw among the fewest likeliest tokens whose probabilities sum up to P
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub top_p: f64,

    /// Draw among tokens at least P times as likely as the likeliest
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub min_p: f64,

    /// Divides the positive logits of tokens that occurred, multiplies the negative ones
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    pub repetition_penalty: f64,

    /// Same seed, same draws
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,

    /// Search with N hypotheses instead of drawing; prints the best
    #[arg(long, value_name = "N", conflicts_with_all = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty",
        "seed", "stop", "show_skips"])]
    pub beams: Option<u32>,

    /// Hypotheses score their log probability over their length to the power of A
    #[arg(long, value_name = "A", default_value_t = 1.0, allow_negative_numbers = true, requires = "beams")]
    pub length_penalty: f64,

    /// Draft K tokens with fewer layers and look at all of them in one step; the text is the same
    #[arg(long, value_name = "K", conflicts_with = "beams")]
    pub speculate: Option<u32>,

    /// Share of the layers executed under routers that a draft is to execute
    #[arg(long, value_name = "P", default_value_t = 0.5, requires = "speculate")]
    pub draft_density: f64,

    /// End before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,

    /// Colour each token by how many routers executed it (not if NO_COLOR is set), with a legend on standard error
    #[arg(long, conflicts_with_all = ["tokens", "json"])]
    pub show_skips: bool,

    /// Write prompts with continuations, int32 `[batch, tokens]`, short rows filled up with -1
    #[arg(long, value_name = "OUT.npy")]
    pub out: Option<PathBuf>,

    /// Where to run: cpu, cuda (the first NVIDIA GPU) or cuda:N (that of this ordinal)
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,

    /// Threads on the CPU; as many as it runs at once by default
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,

    /// Fill memory with NaN before each step and look for stray writes after each kernel (slow)
    #[arg(long)]
    pub checked: bool,

    /// Print texts, tokens and figures as JSON, at the end
    #[arg(long)]
    pub json: bool,
}

/// Figures of a generation that take more than the runtime to know.
pub trait Meter {
    /// Takes note of what the decoder did.
    fn note(&mut self, event: &metered::Event);

    /// Name and value in the JSON that is printed.
    fn json(&self) -> (&'static str, serde_json::Value);

    /// The same, human-readable: a part of a sentence; none if nothing was metered.
    fn text(&self) -> Option<String>;
}

/// Continues what the arguments name, on what [`GenerateArgs::load`] gave. Text goes to the console as it comes; figures go
/// to standard error. Once the reader has gone, nothing more is generated, and that is no error.
///
/// # Errors
///
/// See [`Error`]; [`Error::NonFinite`] where no next token is likely, after what came before it was printed.
pub fn generate(
    args: &GenerateArgs,
    (model, module): (&Model, &Module),
    mut meter: Option<&mut dyn Meter>,
    console: &mut Console<'_>,
) -> Result<(), Error> {
    let sampling = args.sampling();
    sampling.check()?;
    let scored = module.function(SCORE)?;
    if scored.head != Head::Tokens {
        return Err(Error::NoHead { what: "continue texts" });
    }
    let prompts = args.prompts(scored)?;
    let count = u32::try_from(prompts.rows.len()).unwrap_or(u32::MAX);
    let slots = args.beams.unwrap_or(count.clamp(1, SLOTS));
    let mut decoder = decode::of_slots(module, model, slots)?;
    if args.show_skips || args.json {
        decoder.report_choices();
    }
    let decoder = Metered::new(decoder, |event: &metered::Event| {
        if let Some(meter) = &mut meter {
            meter.note(event);
        }
    });
    let device = module.describe();
    let mut run = Run { args, prompts, figures: Figures::default(), console };
    let (rows, failed) = match args.beams {
        Some(beams) => run.search(decoder, beams)?,
        None => run.continue_all(decoder, sampling)?,
    };
    if let Some(path) = &args.out {
        run.write(path, &rows)?;
    }
    if args.json && failed.is_none() {
        let mut summary = run.json(&device, &rows);
        if let Some((name, value)) = meter.as_ref().map(|meter| meter.json()) {
            summary[name] = value;
        }
        run.console.print(&format!("{summary}\n"))?;
    }
    if !args.json {
        run.say(&rows, meter.as_ref().and_then(|meter| meter.text()));
    }
    failed.map_or(Ok(()), Err)
}

impl GenerateArgs {
    /// Opens the model and loads its code.
    ///
    /// # Errors
    ///
    /// As [`Model::open`] and [`Module::load`].
    pub fn load(&self) -> Result<(Model, Module), Error> {
        let model = self.trust.open(&self.model)?;
        let options = Options {
            threads: self.threads.unwrap_or_else(Threads::available),
            checked: self.checked,
            ..Options::default()
        };
        let module = Module::load(&model, self.device, options)?;
        Ok((model, module))
    }

    fn sampling(&self) -> Sampling {
        Sampling {
            repetition_penalty: self.repetition_penalty,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed,
        }
    }

    fn speculation(&self) -> Option<Speculation> {
        self.speculate.map(|tokens| Speculation { tokens, draft_density: self.draft_density })
    }

    fn prompts(&self, scored: &Function) -> Result<Prompts, Error> {
        let vocab_size = scored.vocab_size;
        let files = LanguageFiles {
            model: self.model.clone(),
            tokenizer: self.tokenizer.clone(),
            chat_template: self.chat_template.clone(),
        };
        if let Some(path) = &self.tokens {
            let sequences = Sequences::read(path, self.lengths.as_deref(), Room::Pieces(scored))?;
            let rows = sequences.ids().map(<[u32]>::to_vec).collect();
            let tokenizer = match files.tokenizer(vocab_size) {
                Err(Error::PromptVocabulary { .. }) => None,
                tokenizer => Some(tokenizer?),
            };
            return Ok(Prompts { rows, text: None, tokenizer });
        }
        let text = match (&self.prompt, &self.prompt_file) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => read_text(path, PROMPT_LIMIT)?,
            (None, None) => return Err(Error::EmptyPrompt),
        };
        let tokenizer = files.tokenizer(vocab_size)?;
        if self.chat {
            let template = files.chat_template()?.ok_or(Error::NoChatTemplate)?;
            let prompt = template.render(&[serde_json::json!({"role": "user", "content": text})])?;
            let rows = vec![tokenizer.encode_rendered(&prompt)?];
            return Ok(Prompts { rows, text: Some(String::new()), tokenizer: Some(tokenizer) });
        }
        let rows = vec![tokenizer.encode(&text)?];
        if rows[0].is_empty() {
            return Err(Error::EmptyPrompt);
        }
        Ok(Prompts { rows, text: Some(text), tokenizer: Some(tokenizer) })
    }
}

/// What is continued.
struct Prompts {
    rows: Vec<Vec<u32>>,
    /// What is shown before the continuation, if the only row was given as text: nothing of a chat.
    text: Option<String>,
    tokenizer: Option<Arc<dyn Tokenizer>>,
}

/// What was added to a row.
#[derive(Default)]
struct Row {
    tokens: Vec<u32>,
    text: String,
    /// Nothing for an empty row, and where the reader has gone.
    finish: Option<Finish>,
    /// Of a search.
    score: Option<f64>,
}

/// What ran in which time.
#[derive(Default)]
struct Figures {
    prompt: (u64, Duration),
    new: (u64, Duration),
    /// Tokens that routers decided about.
    decided: u64,
    /// How many of them each router executed.
    executed: Vec<u64>,
    /// How many of them took each choice, by layer of experts.
    loads: Vec<Vec<u64>>,
    /// Nothing without drafts.
    drafts: Option<Drafts>,
}

impl Figures {
    /// Adds the time of a step to both parts by their tokens.
    fn add(&mut self, time: Duration, prompt_tokens: u32, new_tokens: u32) {
        let all = (prompt_tokens + new_tokens).max(1);
        for (part, tokens) in [(&mut self.prompt, prompt_tokens), (&mut self.new, new_tokens)] {
            part.0 += u64::from(tokens);
            part.1 += time * tokens / all;
        }
    }

    fn ran(&mut self, gates: &[Vec<u8>], choices: &[Choices]) {
        self.loads.resize(choices.len(), Vec::new());
        for (loads, layer) in self.loads.iter_mut().zip(choices) {
            loads.resize(layer.of as usize, 0);
            loads.iter_mut().zip(layer.loads()).for_each(|(sum, load)| *sum += load);
        }
        self.executed.resize(gates.len(), 0);
        self.decided += gates.first().map_or(0, |gate| gate.len() as u64);
        for (executed, gate) in self.executed.iter_mut().zip(gates) {
            *executed += gate.iter().map(|executes| u64::from(*executes)).sum::<u64>();
        }
    }
}

fn rate((tokens, time): (u64, Duration)) -> f64 {
    if tokens == 0 { 0.0 } else { tokens as f64 / time.as_secs_f64().max(1e-9) }
}

/// A rate in words; nothing where nothing was timed.
fn a_second(timed: (u64, Duration)) -> String {
    if timed.0 == 0 { String::new() } else { format!(", {:.1} a second", rate(timed)) }
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

struct Run<'a, 'c> {
    args: &'a GenerateArgs,
    prompts: Prompts,
    figures: Figures,
    console: &'a mut Console<'c>,
}

impl Run<'_, '_> {
    /// Whether text is shown as it comes.
    fn streams(&self) -> bool {
        self.prompts.text.is_some() && !self.args.json
    }

    fn continue_all(
        &mut self,
        decoder: impl Decoder,
        sampling: Sampling,
    ) -> Result<(Vec<Row>, Option<Error>), Error> {
        let (tokenizer, speculation) = (self.prompts.tokenizer.clone(), self.args.speculation());
        let options = EngineOptions { tokenizer, speculation, ..EngineOptions::default() };
        let mut engine = Engine::on(decoder, options)?;
        let mut handles = Vec::new();
        for (index, prompt) in (0u32..).zip(&self.prompts.rows) {
            let request = Request {
                prompt: prompt.clone(),
                max_new_tokens: self.args.max_new_tokens,
                sampling,
                stop: self.args.stop.clone(),
                sequence: index,
                draw: index.into(),
                logprobs: None,
            };
            handles.push(if prompt.is_empty() { None } else { Some(engine.submit(request)?) });
        }
        let mut rows: Vec<Row> = handles.iter().map(|_| Row::default()).collect();
        let mut skips = self.begin()?;
        let mut failed = None;
        while failed.is_none() && !self.console.is_closed() {
            let started = Instant::now();
            let progress = engine.step()?;
            self.figures.add(started.elapsed(), progress.prompt_tokens, progress.new_tokens);
            for (handle, row) in handles.iter().zip(&mut rows) {
                let Some(handle) = handle else { continue };
                failed = failed.or(self.take(handle, row, skips.as_mut())?);
            }
            if engine.is_idle() {
                break;
            }
        }
        self.figures.drafts = self.args.speculation().map(|_| engine.drafts());
        if let Some(skips) = &mut skips {
            skips.finish(self.console)?;
        }
        if self.streams() {
            self.console.print("\n")?;
        }
        if let Some(skips) = &skips {
            skips.legend(self.console, &self.figures.loads);
        }
        if self.prompts.text.is_none() && !self.args.json && failed.is_none() {
            self.print_ids(&rows)?;
        }
        Ok((rows, failed))
    }

    /// Shows the prompt; gives what shows the rest, if that is coloured.
    fn begin(&mut self) -> Result<Option<Skips>, Error> {
        let Some(text) = self.prompts.text.as_ref().filter(|_| !self.args.json) else { return Ok(None) };
        let Some(tokenizer) = self.prompts.tokenizer.clone().filter(|_| self.args.show_skips) else {
            self.console.text(text)?;
            return Ok(None);
        };
        let mut skips = Skips::default();
        let mut stream = TextStream::new(tokenizer, &[]);
        self.prompts.rows[0].iter().for_each(|token| skips.push(stream.push(*token)));
        Ok(Some(skips))
    }

    /// Takes the events that are there; an error ends all.
    fn take(
        &mut self,
        handle: &Handle,
        row: &mut Row,
        mut skips: Option<&mut Skips>,
    ) -> Result<Option<Error>, Error> {
        for event in handle.ready() {
            let text = match event {
                Event::Ran { gates, choices } => {
                    self.figures.ran(&gates, &choices);
                    if let Some(skips) = skips.as_deref_mut() {
                        skips.ran(&gates);
                        skips.print(self.console)?;
                    }
                    continue;
                }
                Event::Token { token, text, .. } => {
                    row.tokens.push(token);
                    text
                }
                Event::Finished { text, reason } => {
                    row.finish = Some(reason);
                    text
                }
                Event::Failed(error) => return Ok(Some(error)),
            };
            row.text += &text;
            match skips.as_deref_mut() {
                Some(skips) => skips.push(text),
                None if self.streams() => self.console.text(&text)?,
                None => {}
            }
        }
        Ok(None)
    }

    fn search(&mut self, mut decoder: impl Decoder, beams: u32) -> Result<(Vec<Row>, Option<Error>), Error> {
        let tokenizer = self.prompts.tokenizer.clone();
        let ends = tokenizer.as_ref().map(|tokenizer| tokenizer.ends().to_vec()).unwrap_or_default();
        let known = tokenizer.as_ref().map_or(u32::MAX, |tokenizer| tokenizer.vocab_size());
        let drawable = known.min(decoder.limits().vocab_size);
        let mut rows = Vec::new();
        for (sequence, prompt) in (0u32..).zip(&self.prompts.rows) {
            if prompt.is_empty() {
                rows.push(Row::default());
                continue;
            }
            let search = Search {
                prompt,
                sequence,
                beams,
                max_new_tokens: self.args.max_new_tokens,
                length_penalty: self.args.length_penalty,
                ends: &ends,
                drawable,
            };
            let started = Instant::now();
            let found = beam::search(&mut decoder, &search)?;
            let given = (prompt.len() as u64).min(found.tokens) as u32;
            self.figures.add(started.elapsed(), given, found.tokens as u32 - given);
            self.figures.decided += found.tokens;
            self.figures.executed.resize(found.executed.len(), 0);
            for (sum, executed) in self.figures.executed.iter_mut().zip(&found.executed) {
                *sum += executed;
            }
            let mut row = Row { finish: Some(Finish::MaxNewTokens), ..Row::default() };
            if let Some(best) = found.hypotheses.into_iter().next() {
                row = Row { tokens: best.tokens, finish: Some(best.finish), score: Some(best.score), ..row };
            } else if prompt.len() >= decoder.limits().positions as usize {
                row.finish = Some(Finish::Positions);
            }
            if let Some(tokenizer) = &tokenizer {
                let mut stream = TextStream::new(Arc::clone(tokenizer), prompt);
                row.text = row.tokens.iter().map(|token| stream.push(*token)).collect();
                row.text += &stream.finish();
            }
            rows.push(row);
        }
        if self.streams() {
            self.begin()?;
            let text = rows.iter().map(|row| row.text.as_str()).collect::<String>();
            self.console.text(&(text + "\n"))?;
        } else if !self.args.json {
            self.print_ids(&rows)?;
        }
        Ok((rows, None))
    }

    /// One line of new token ids for each row; that of an empty row is empty.
    fn print_ids(&mut self, rows: &[Row]) -> Result<(), Error> {
        for row in rows {
            let ids: Vec<String> = row.tokens.iter().map(ToString::to_string).collect();
            self.console.print(&format!("{}\n", ids.join(" ")))?;
        }
        Ok(())
    }

    fn write(&self, path: &Path, rows: &[Row]) -> Result<(), Error> {
        let whole: Vec<Vec<u32>> = std::iter::zip(&self.prompts.rows, rows)
            .map(|(prompt, row)| [&prompt[..], &row.tokens].concat())
            .collect();
        let width = whole.iter().map(Vec::len).max().unwrap_or(0);
        let padded = |row: &Vec<u32>| -> Vec<i32> {
            let ids = row.iter().map(|token| *token as i32);
            ids.chain(std::iter::repeat_n(-1, width - row.len())).collect()
        };
        let array: Vec<i32> = whole.iter().flat_map(padded).collect();
        npy::write(path, &[whole.len() as u64, width as u64], &array)
    }

    fn json(&self, device: &str, rows: &[Row]) -> serde_json::Value {
        let sequence = |(prompt, row): (&Vec<u32>, &Row)| {
            let mut sequence = serde_json::json!({
                "prompt_tokens": prompt.len(),
                "tokens": row.tokens,
                "finish_reason": row.finish.map(Finish::reason),
                "at_last_position": row.finish == Some(Finish::Positions),
            });
            if self.prompts.tokenizer.is_some() {
                sequence["text"] = row.text.as_str().into();
            }
            if let Some(score) = row.score {
                sequence["score"] = score.into();
            }
            sequence
        };
        let sequences: Vec<_> = std::iter::zip(&self.prompts.rows, rows).map(sequence).collect();
        let mut summary = serde_json::json!({
            "device": device,
            "sequences": sequences,
            "prompt_tokens_per_second": rate(self.figures.prompt),
            "tokens_per_second": rate(self.figures.new),
            "decided": self.figures.decided,
            "executed": self.figures.executed,
        });
        if !self.figures.loads.is_empty() {
            summary["experts"] = serde_json::json!(self.figures.loads);
        }
        if let Some(Drafts { proposed, accepted, executed_by_draft, executed }) = self.figures.drafts {
            summary["drafts"] = serde_json::json!({
                "proposed": proposed,
                "accepted": accepted,
                "executed_by_draft": executed_by_draft,
                "executed": executed,
            });
        }
        summary
    }

    /// Figures of the run, human-readable.
    fn say(&mut self, rows: &[Row], more: Option<String>) {
        let Figures { prompt, new, decided, executed, drafts, .. } = &self.figures;
        let added: usize = rows.iter().map(|row| row.tokens.len()).sum();
        let mut text = format!(
            "prompt: {}{}; continuation: {}{}; ",
            counted(prompt.0, "token"),
            a_second(*prompt),
            counted(added as u64, "token"),
            a_second(*new)
        );
        text += &match executed.len() {
            0 => "no routers: every layer runs\n".to_owned(),
            routers => {
                let sum: u64 = executed.iter().sum();
                let mean = sum as f64 / (*decided).max(1) as f64;
                format!("{mean:.2} of {routers} routers executed a token\n")
            }
        };
        if let Some(Drafts { proposed, accepted, executed_by_draft, executed }) = drafts {
            text += &format!(
                "drafts: {accepted} of {proposed} tokens accepted ({:.1} %), with {:.0} % of the executions\n",
                percent(*accepted, *proposed),
                percent(*executed_by_draft, *executed)
            );
        }
        text += &more.map(|more| more + "\n").unwrap_or_default();
        for (index, _) in rows.iter().enumerate().filter(|(_, row)| row.finish == Some(Finish::Positions)) {
            text += &match rows.len() {
                1 => "it ends at the model's last position\n".to_owned(),
                _ => format!("row {index} ends at the model's last position\n"),
            };
        }
        self.console.say(&text);
    }
}
