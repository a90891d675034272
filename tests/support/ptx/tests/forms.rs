//! The list of forms that people read is the table that the machine uses, and its sections are those of the PTX ISA.

use std::path::Path;

use skipc_ptx::machine::decode::expand;
use skipc_ptx::{forms, op};

#[test]
fn the_list_of_forms_is_that_of_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("FORMS.md");
    let list = forms::list();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &list).expect("FORMS.md can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let line = found.lines().zip(list.lines()).position(|(found, list)| found != list);
    assert!(
        found == list,
        "FORMS.md differs from the tables, first in line {}; BLESS=1 cargo test -p skipc-ptx --test forms writes it anew",
        line.unwrap_or_else(|| found.lines().count().min(list.lines().count())) + 1
    );
}

#[test]
fn every_form_is_in_the_list_once() {
    let rows = forms::list().lines().filter(|line| line.starts_with("| 9.")).count();
    assert_eq!(rows, op::forms().count(), "a group of sections is missing in the list");
}

/// A wrong number leads a reader to another instruction.
#[test]
fn sections_describe_the_instructions_of_their_forms() {
    for form in op::forms() {
        let sections: Vec<&str> = form.section.split(',').map(str::trim).collect();
        let titles: Vec<&str> = sections
            .iter()
            .map(|section| {
                forms::title(section).unwrap_or_else(|| panic!("{section} of {} is unknown", form.syntax))
            })
            .flat_map(|title| title.split(" / "))
            .collect();
        let describes = |name: &String, title: &&str| {
            name.strip_prefix(title).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        for name in expand(form.syntax) {
            let described = titles.iter().any(|title| describes(&name, title));
            assert!(described, "`{name}` has sections {sections:?}, which describe {titles:?}");
        }
    }
}

/// Two kernels that hold each kind of instruction that MLIR's NVVM ops become on Ampere and on Hopper.
#[test]
fn what_nvvm_ops_become_is_known() {
    use skipc_ptx::machine::Program;

    for (name, text) in [
        ("ampere", include_str!("kernels/ampere_features.ptx")),
        ("hopper", include_str!("kernels/hopper_features.ptx")),
    ] {
        let program = Program::load(text, name).unwrap_or_else(|error| panic!("{error}"));
        assert!(program.n_instructions() > 10);
    }
}

#[test]
fn a_launch_waits_for_no_other() {
    use std::sync::Arc;

    use skipc_ptx::machine::{Arg, Buffer, Launch, Memory, Program, run};

    let text = "\
        .version 9.0\n.target sm_90a\n.address_size 64\n\
        .visible .entry last(.param .u64 to)\n{\n\
        .reg .b32 %r<2>;\n.reg .b64 %rd<2>;\n\
        griddepcontrol.wait;\n\
        ld.param.b64 %rd1, [to];\nmov.b32 %r1, 7;\nst.global.b32 [%rd1], %r1;\n\
        griddepcontrol.launch_dependents;\nret;\n}\n";
    let program = Arc::new(Program::load(text, "last").unwrap_or_else(|error| panic!("{error}")));
    let mut memory = Memory::default();
    let to = memory.add(Buffer { name: "to".to_owned(), bytes: vec![0; 4], writable: true });
    let counters = run(&program, &Launch::new([1; 3], 1, vec![Arg::U64(to)]), &mut memory).expect("no fault");
    assert_eq!((memory.buffers()[0].bytes[0], counters.thread_instructions), (7, 6));
}
