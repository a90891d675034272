//! `skipc serve`: a model behind the OpenAI API.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use skipc_runtime::Device;
use skipc_runtime::decode::LanguageFiles;
use skipc_runtime::threads::Threads;

use super::{TrustArgs, open_index, shares};
use crate::driver::original::model_of;
use crate::error::Error;
use crate::serve::{self, EngineSettings, Report, Settings};

/// Arguments of `skipc serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The compiled model. Its machine code becomes part of this process: open only files that you trust as programs.
    #[arg(value_name = "M.skp")]
    pub model: PathBuf,

    /// Whose artefacts run.
    #[command(flatten)]
    pub trust: TrustArgs,

    /// Name or address to listen at.
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    pub host: String,

    /// Port to listen at; 0 takes a free one, which is printed.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub port: u16,

    /// How many continuations run at a time.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub slots: u32,

    /// Room in the cache for so many tokens of all slots together, taken at the start [default: the longest sequence in
    /// every slot].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub cache_tokens: Option<u32>,

    /// How many continuations may wait for a slot; more are refused (429).
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(0..=1 << 16))]
    pub queue: u32,

    /// How long a request may take (408).
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub timeout: u32,

    /// How long what runs may take after SIGTERM.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    pub grace: u32,

    /// File of keys, one a line, of which requests need one (401).
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,

    /// The tokenizer.json of the model, or the folder that has it [default: beside the artefact; a model of 256 tokens
    /// needs none: they are bytes].
    #[arg(long, value_name = "FILE|DIR")]
    pub tokenizer: Option<PathBuf>,

    /// Chat template (Jinja) [default: that in tokenizer_config.json, beside the tokenizer or the artefact].
    #[arg(long, value_name = "FILE")]
    pub chat_template: Option<PathBuf>,

    /// Where to run: cpu, cuda (the first NVIDIA GPU) or cuda:N (that of this ordinal).
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,

    /// Threads of the host [default: all cores].
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

pub(super) fn run(args: &ServeArgs, json: bool, out: &mut dyn Write) -> Result<String, Error> {
    let model = model_of(&open_index(&args.model)?, &args.model)?;
    let seconds = |count: u32| Duration::from_secs(count.into());
    let settings = Settings {
        engine: EngineSettings {
            files: LanguageFiles {
                model: args.model.clone(),
                tokenizer: args.tokenizer.clone(),
                chat_template: args.chat_template.clone(),
            },
            device: args.device,
            options: skipc_runtime::Options {
                threads: args.threads.unwrap_or_else(Threads::available),
                ..skipc_runtime::Options::default()
            },
            trust: args.trust.trust.clone(),
            slots: args.slots,
            cache_tokens: args.cache_tokens,
            layers: shares::names(&model),
        },
        host: args.host.clone(),
        port: args.port,
        queue: args.queue,
        timeout: seconds(args.timeout),
        grace: seconds(args.grace),
        api_key_file: args.api_key_file.clone(),
    };
    let mut report = |report: &Report| {
        let line = match json {
            true => serde_json::to_string(report).ok(),
            false => text(report),
        };
        // A server whose reports nobody reads goes on.
        let _ = line.map(|line| writeln!(out, "{line}").and_then(|()| out.flush()));
    };
    serve::serve(&settings, &mut report)?;
    Ok(String::new())
}

/// What people read: not every request.
fn text(report: &Report) -> Option<String> {
    match report {
        Report::Listening { address, model, device } => {
            Some(format!("{model} on {device}: listening at http://{address}"))
        }
        Report::Answered { .. } => None,
        Report::Stopping => Some("stopping: finishing what runs".into()),
        Report::Stopped { unfinished: 0 } => Some("stopped".into()),
        Report::Stopped { unfinished } => Some(format!("stopped; {unfinished} continuations were given up")),
    }
}
