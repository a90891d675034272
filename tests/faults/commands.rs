//! Every command that writes files, with all the options that name one.

use std::collections::BTreeSet;
use std::path::Path;

use super::inputs;

/// A command that writes. In its arguments, `IN/` is the folder of inputs and `OUT/` that of outputs.
pub(crate) struct Writer {
    pub(crate) name: &'static str,
    args: &'static str,
    /// Its options that name outputs, as the command line's own table calls them.
    options: &'static [&'static str],
    /// Whether what it writes may be there before, and is then replaced.
    pub(crate) replaces: bool,
    /// Whether it takes a second and more, so that tests that run often try few of its points.
    pub(crate) is_slow: bool,
    /// How it ends with all files written.
    pub(crate) exit: i32,
}

impl Writer {
    const fn new(name: &'static str, options: &'static [&'static str], args: &'static str) -> Writer {
        Writer { name, args, options, replaces: true, is_slow: false, exit: 0 }
    }

    /// The arguments, for outputs in `out`.
    pub(crate) fn args(&self, out: &Path) -> Vec<String> {
        placed(self.args, out)
    }
}

/// Arguments with their folders in place of `IN/` and `OUT/`.
pub(crate) fn placed(args: &str, out: &Path) -> Vec<String> {
    let input = inputs::folder().display().to_string();
    let place =
        |arg: &str| arg.replace("IN/", &format!("{input}/")).replace("OUT", &out.display().to_string());
    args.split_whitespace().map(place).collect()
}

/// A writer by its name.
pub(crate) fn writer(name: &str) -> &'static Writer {
    WRITERS.iter().find(|writer| writer.name == name).unwrap()
}

pub(crate) const WRITERS: &[Writer] = &[
    Writer::new("init", &["output"], "init IN/spec.toml -o OUT/w"),
    Writer::new(
        "compile",
        &["output"],
        "compile IN/spec.toml --weights IN/w --cpu-backend cranelift --cpu-levels native --max-tokens 128 -o OUT/m.skp",
    ),
    Writer::new(
        "compile in two files",
        &["output", "external_output"],
        "compile IN/spec.toml --weights IN/w --cpu-backend cranelift --cpu-levels native --max-tokens 128 --no-steps
         -o OUT/m.skp --external-weights=OUT/m.skw",
    ),
    Writer::new(
        "compile with reports",
        &["dump_to", "report_to"],
        "compile IN/spec.toml --weights IN/w --cpu-backend cranelift --cpu-levels native --max-tokens 128 --no-steps
         -o OUT/m.skp --report OUT/report --dump-to OUT/stages",
    ),
    Writer::new(
        "run",
        &["logits", "routing_out"],
        "run IN/m.skp --tokens IN/t.npy --logits OUT/l.npy --routing-out OUT/r.trace",
    ),
    Writer::new(
        "run with experts",
        &["experts_out", "routing_out"],
        "run IN/e.skp --tokens IN/t.npy --experts-out OUT/e.npy --routing-out OUT/r.npy",
    ),
    Writer::new("generate", &["out"], "generate IN/m.skp --tokens IN/t.npy --max-new-tokens 2 --out OUT/g.npy"),
    Writer::new("trace record", &["output"], "trace record IN/m.skp --tokens IN/t.npy -o OUT/x.trace"),
    Writer::new("trace generate", &["output"], "trace generate IN/m.skp --lengths 5 --density 0.5 -o OUT/x.trace"),
    Writer::new("trace show", &["html"], "trace show IN/x.trace --html OUT/page"),
    Writer {
        is_slow: true,
        ..Writer::new("tune", &["output"], "tune IN/spec.toml --rounds 1 --cpu-backend cranelift -o OUT/t.json")
    },
    Writer::new(
        "bench",
        &["svg", "report"],
        "bench IN/m.skp --rounds 1 --tokens 16 --density 0.5 --forms fused --svg OUT/b.svg --report OUT/b.json",
    ),
    Writer {
        is_slow: true,
        ..Writer::new(
            "profile",
            &["svg", "perfetto", "lines"],
            "profile IN/m.skp --rounds 1 --tokens 16 --perfetto OUT/p.json --lines OUT/p.jsonl --svg OUT/p.svg",
        )
    },
    Writer::new("opt", &["output"], "opt IN/g.sir -o OUT/g.sir"),
    Writer::new("sign", &["output"], "sign IN/m.skp --key IN/key.pem -o OUT/m.skp.sig"),
    // What is not there yet: a key is never replaced.
    Writer { replaces: false, ..Writer::new("sign --new-key", &["new_key"], "sign --new-key OUT/key.pem") },
    Writer::new("man", &["dir"], "man OUT/man"),
    Writer::new("inspect", &["html"], "inspect IN/m.skp --html OUT/html"),
    Writer::new("diff", &["html"], "diff IN/m.skp IN/e.skp --html OUT/diff"),
    // That the forms differ is what it is about.
    Writer {
        is_slow: true,
        exit: 3,
        ..Writer::new("verify", &["keep"], "verify IN/silenced.skp --keep OUT/case")
    },
    // A folder with a checkpoint is not trained into again without `--resume`.
    Writer {
        replaces: false,
        ..Writer::new(
            "train",
            &["folder", "record", "svg"],
            "train IN/learns.toml --config IN/train.toml --target interpreter --save-every 1 --eval-every 1
             -o OUT/run --record OUT/record --svg OUT/run.svg",
        )
    },
];

/// The command line has a table of what it does with each of its paths.
#[test]
fn every_option_that_names_an_output_is_among_them() {
    let table = include_str!("../../backends/runtime/src/command/files.rs");
    let (_, table) = table.split_once("const USES").unwrap();
    let (table, _) = table.split_once("\n];").unwrap();
    let names = |of: &str| table.matches(of).count();
    let written: BTreeSet<&str> = table
        .split('(')
        .filter_map(|row| {
            // In a row of its own, or over several lines.
            let (name, usage) = row.trim().strip_prefix('"')?.split_once("\",")?;
            (!usage.contains("FileUse::Read")).then_some(name)
        })
        .collect();
    assert_eq!(written.len(), names("FileUse::Write") + names("FileUse::Folder"), "{written:?}");
    let tried: BTreeSet<&str> = WRITERS.iter().flat_map(|writer| writer.options).copied().collect();
    assert_eq!(written, tried);
}
