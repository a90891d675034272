//! `skipc-ptx`: runs one kernel of a PTX file by hand, in several schedules, and says what is wrong with it.

mod argument;
mod data;
mod failure;
mod list;
mod prepare;
mod report;
mod sass;
mod schedules;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use skipc_ptx::machine::Program;
use skipc_ptx::syntax::{Kernel, Module};

use argument::{ArgumentSpec, Extent, OutputSpec, PrintSpec};
use failure::Failure;

/// Runs a kernel of a PTX file on the CPU, in several schedules, and finds races, missing waits and fences, deadlocks,
/// and accesses that are out of bounds or read what nobody wrote.
#[derive(Debug, Parser)]
#[command(name = "skipc-ptx", version, arg_required_else_help = true, after_long_help = ARGUMENTS)]
struct Cli {
    /// The PTX text
    #[arg(value_name = "FILE.ptx", required_unless_present = "forms")]
    file: Option<PathBuf>,

    /// The kernel; may be left out if the file has only one
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,

    /// Blocks of the grid in x, y, z; those left out are 1
    #[arg(long, value_name = "X,Y,Z", default_value = "1")]
    grid: Extent,

    /// Threads of a block in x, y, z [default: what the kernel's .reqntid says]
    #[arg(long, value_name = "X,Y,Z")]
    block: Option<Extent>,

    /// Bytes of dynamic shared memory of a block
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    shared: u32,

    /// An argument of the kernel, in order; see below
    #[arg(long, value_name = "[NAME=]SPEC")]
    arg: Vec<ArgumentSpec>,

    /// A buffer that is no argument itself, for tensor maps to lie over; see below
    #[arg(long, value_name = "NAME=SPEC")]
    buffer: Vec<ArgumentSpec>,

    /// Seed of `random-…` and `integers-…`
    #[arg(long, value_name = "N", default_value_t = 0)]
    data_seed: u64,

    /// How many schedules are tried, with seeds 0, 1, …
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    schedules: u64,

    /// Try only the schedule with this seed
    #[arg(long, value_name = "S", conflicts_with = "schedules")]
    seed: Option<u64>,

    /// Instructions of warps after which a block is taken to have no end
    #[arg(long, value_name = "N", default_value_t = 200_000_000)]
    patience: u64,

    /// Run each schedule N times; the rate that is printed is that of the fastest
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,

    /// Write a buffer after the run of the first schedule: .npy if its type is known, else its bytes
    #[arg(long, value_name = "NAME=FILE")]
    out: Vec<OutputSpec>,

    /// Print the first elements of a buffer after the run of the first schedule (16, or N)
    #[arg(long, value_name = "NAME[:N]")]
    print: Vec<PrintSpec>,

    /// Print what the first schedule without a fault counted
    #[arg(long)]
    counters: bool,

    /// List the kernels of the file instead of running one
    #[arg(long, conflicts_with = "kernel")]
    list: bool,

    /// Show what the machine code of the kernels costs at least, loop by loop, and what its warps wait for, instead of running
    /// one: assembled by ptxas, disassembled by nvdisasm
    #[arg(long, conflicts_with = "list")]
    sass: bool,

    /// List the instructions that the machine knows
    #[arg(long)]
    forms: bool,

    /// Print results and errors as JSON
    #[arg(long)]
    json: bool,
}

/// What `--help` says behind the options.
const ARGUMENTS: &str = "\
Arguments:
  u32:7  i32:-1  u64:9  i64:-1  f32:1.5    a number
  zeros:4096  poison:4096                  a writable buffer of so many bytes; `poison` is NaN in bf16 and f32
  zeros-TYPE:SHAPE  poison-TYPE:SHAPE      a writable buffer of elements
  random-TYPE:SHAPE                        numbers from -1 to 1
  integers-TYPE:SHAPE                      whole numbers from -2 to 2, whose sums are exact
  u32s:1,2,3                               32-bit numbers
  iota:N                                   32-bit numbers 0, 1, … N-1
  file:PATH  file-TYPE:PATH                bytes of a file; those of a .npy file without its header, rounded to TYPE
  map:BUFFER,TYPE,ROWSxCOLS,BOXROWSxBOXCOLS,SWIZZLE
                                           a tensor map over the buffer of an earlier argument or --buffer, by its
                                           name or its index among the arguments; SWIZZLE is 0, 32, 64 or 128 bytes
TYPE is bf16, f16, f32 or u32; SHAPE is 128x64, or any other number of sizes.
Buffers are passed by address. Other than `zeros` and `poison` they may only be read; `rw:` before one lets the kernel
write it, as in `x=rw:integers-f32:8x8`. A buffer without a name has that of the parameter.

Exit codes: 0 no fault, 1 something given is wrong, 2 the command line is wrong, 3 a fault was found or schedules give
different results.

Example:
  skipc-ptx axpy.ptx --grid 4 --block 128 --arg f32:2 --arg x=random-f32:512 --arg y=rw:random-f32:512 --print y:4";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (text, code) = match run(&cli) {
        Ok(report) => (report.text, if report.is_sound { ExitCode::SUCCESS } else { ExitCode::from(3) }),
        Err(failure) if cli.json => (format!("{:#}\n", failure.json()), ExitCode::FAILURE),
        Err(failure) => {
            eprint!("{failure}");
            (String::new(), ExitCode::FAILURE)
        }
    };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // A reader that has seen enough, such as `head`, is no error.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("skipc-ptx: standard output: {error}");
            ExitCode::FAILURE
        }
        _ => code,
    }
}

/// What goes to standard output, and whether the kernel is free of faults.
struct Report {
    text: String,
    is_sound: bool,
}

fn run(cli: &Cli) -> Result<Report, Failure> {
    let Some(path) = cli.file.as_ref().filter(|_| !cli.forms) else {
        return Ok(Report { text: list::forms(cli.json), is_sound: true });
    };
    let text = std::fs::read_to_string(path).map_err(|error| Failure::file(path, &error))?;
    let module = skipc_ptx::syntax::parse(&text)
        .map_err(|error| Failure::new(error.what.clone()).at(path, &text, error.line))?;
    if cli.list {
        return Ok(Report { text: list::kernels(&module, cli.json), is_sound: true });
    }
    if cli.sass {
        if let Some(name) = cli.kernel.as_deref() {
            choose(&module, Some(name))?;
        }
        let text = sass::figures(path, &module, cli.kernel.as_deref(), cli.json)?;
        return Ok(Report { text, is_sound: true });
    }
    let kernel = choose(&module, cli.kernel.as_deref())?;
    let program =
        Program::of_module(&module, &kernel.name).map_err(|error| Failure::load(&error, path, &text))?;
    let prepared = prepare::prepare(cli, kernel)?;
    let runs = schedules::run(cli, program, &prepared)?;
    report::write_files(&cli.out, &prepared, &runs)?;
    let text =
        if cli.json { report::json(cli, &prepared, &runs)? } else { report::text(cli, &prepared, &runs)? };
    Ok(Report { text, is_sound: runs.are_sound() })
}

/// The kernel of this name, or the only one.
fn choose<'m>(module: &'m Module, name: Option<&str>) -> Result<&'m Kernel, Failure> {
    let names =
        || module.kernels.iter().map(|kernel| format!("`{}`", kernel.name)).collect::<Vec<_>>().join(", ");
    match (name, module.kernels.as_slice()) {
        (_, []) => Err(Failure::new("the file has no kernel (`.entry`)")),
        (None, [only]) => Ok(only),
        (None, several) => {
            let what = format!("the file has {} kernels", several.len());
            Err(Failure::new(what).help(format!("say which with --kernel: {}", names())))
        }
        (Some(name), kernels) => kernels.iter().find(|kernel| kernel.name == name).ok_or_else(|| {
            Failure::new(format!("unknown kernel `{name}`")).help(format!("the file has {}", names()))
        }),
    }
}
