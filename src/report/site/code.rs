//! The code of each kernel in all forms that there are: what generators print on their way, PTX, and machine code of GPUs
//! where NVIDIA's disassembler is at hand.

use std::collections::BTreeMap;

use skipc_artifact::program::Program;
use skipc_artifact::target::Target;

use crate::driver::backends;
use crate::report::Subject;
use crate::report::subject::PlansOf;

/// Bytes of one kernel in one form that are kept: some thousand lines, so that a report stays a few megabytes.
const KEPT: usize = 64 << 10;

/// A form of a kernel: what it is, for which target, its text.
pub(super) type Form = (String, String, String);

/// Stages that are shown of those that generators print. MLIR is the same code as the LLVM made of it, in more words.
const STAGES: [&str; 2] = ["clif", "llvm"];

/// The forms of each kernel, under `P-K` for kernel K of program P. A target whose generator this build or machine does not
/// have shows what the artefact itself holds.
pub(super) fn of(subject: &Subject) -> Vec<(String, Vec<Form>)> {
    let mut found = Vec::new();
    for (idx, program) in subject.programs.iter().enumerate() {
        let Some(plans) = subject.plans_of(program) else { continue };
        let mut forms: BTreeMap<usize, Vec<Form>> = BTreeMap::new();
        for (stage, text) in texts(subject, program, plans) {
            for (kernel, text) in split(&text, plans) {
                forms.entry(kernel).or_default().push((stage.clone(), program.target.to_string(), cut(text)));
            }
        }
        found.extend(forms.into_iter().map(|(kernel, forms)| (format!("{idx}-{kernel}"), forms)));
    }
    found
}

/// Whole texts of a program's code, each with the name of its form.
fn texts(subject: &Subject, program: &Program, plans: &PlansOf) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let request = &subject.request;
    // What is generated without the measured times that decided among forms would be other code.
    if subject.knows_its_code()
        && let Ok(backend) =
            backends::for_target(&program.target, request.cpu(), (request.bucketings)(&program.target))
    {
        let kernels: Vec<_> =
            plans.linked.kernels.iter().map(|(symbol, kernel)| (symbol.clone(), kernel)).collect();
        if let Ok(code) = backend.compile(&kernels) {
            found.extend(code.stages.into_iter().filter(|(stage, _)| STAGES.contains(&stage.as_str())));
        }
    }
    if let Target::Cuda(arch) = &program.target {
        let piece = |name: &str| subject.code.iter().find(|code| code.name == format!("cuda/{arch}/{name}"));
        let ptx = piece("code.ptx").map(|code| String::from_utf8_lossy(&code.content).into_owned());
        found.extend(ptx.map(|text| ("ptx".to_owned(), text)));
        let sass = piece("code.cubin").and_then(|code| skipc_sass::disassemble(&code.content, &[]).ok());
        found.extend(sass.map(|text| ("sass".to_owned(), text)));
    }
    found
}

/// The part of a text that each kernel is. A function begins at a line that names it and does not begin with a blank, and ends
/// at the brace that stands at the beginning of a line (LLVM, CLIF, PTX), or where the next section does (SASS).
fn split(text: &str, plans: &PlansOf) -> BTreeMap<usize, String> {
    let mut found: BTreeMap<usize, String> = BTreeMap::new();
    let mut inside: Option<usize> = None;
    for line in text.lines() {
        if inside.is_none() {
            inside = begins(line, plans);
        }
        let Some(kernel) = inside else { continue };
        if line.starts_with("//-----") {
            inside = None;
            continue;
        }
        let part = found.entry(kernel).or_default();
        part.push_str(line.trim_end());
        part.push('\n');
        if line == "}" {
            inside = None;
        }
    }
    found
}

/// The kernel whose function begins at this line.
fn begins(line: &str, plans: &PlansOf) -> Option<usize> {
    let is_head = line.ends_with(['{', '(']) || line.starts_with("; ") || line.starts_with(".text.");
    if !is_head || line.starts_with(char::is_whitespace) {
        return None;
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = || line.split(|c| !is_name(c));
    plans.linked.kernels.iter().position(|(symbol, _)| words().any(|word| word == symbol))
}

fn cut(mut text: String) -> String {
    if text.len() > KEPT {
        let lines = text.lines().count();
        let mut end = KEPT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(text[..end].rfind('\n').map_or(end, |at| at + 1));
        let left = lines - text.lines().count();
        text.push_str(&format!("… {left} lines more: `skipc compile --dump-to DIR` writes all\n"));
    }
    text
}
