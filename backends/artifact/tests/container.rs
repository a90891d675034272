//! Artefacts as files: same bytes for the same sections, and no edit of a file that goes unnoticed.

use proptest::prelude::*;
use skipc_artifact::Error;
use skipc_artifact::manifest::{Manifest, Promises};
use skipc_artifact::reader::Artifact;
use skipc_artifact::section::{ContentHash, SectionKind};
use skipc_artifact::writer::Writer;

fn manifest() -> Manifest {
    Manifest {
        model: "tiny".into(),
        compiler: "0.1.0".into(),
        llvm: None,
        ptxas: Some("13.0.88".into()),
        flags: vec!["--max-tokens=64".into()],
        spec_hash: ContentHash::of(b"spec"),
        weights_hash: ContentHash::of(b"weights"),
        targets: vec!["cpu".into()],
        promises: Promises { device_resident: true, causal: true },
    }
}

/// Four sections, of which two share their content and one is empty.
fn golden() -> Vec<u8> {
    let mut writer = Writer::new(manifest());
    writer.section("spec.toml", SectionKind::Spec, &b"[model]\n"[..]).unwrap();
    writer.section("cpu/x86-64.code", SectionKind::HostCode, vec![0xc3; 70]).unwrap();
    writer.section("empty", SectionKind::Constants, Vec::new()).unwrap();
    writer.section("cpu/x86-64-v3.code", SectionKind::HostCode, vec![0xc3; 70]).unwrap();
    writer.to_bytes().unwrap()
}

fn code_of(file: &[u8]) -> &'static str {
    Artifact::parse(file).map(|_| ()).expect_err("the file was edited").code()
}

/// A file with the given header text, hashed as it should be.
fn forged(header: &str, rest: &[u8]) -> Vec<u8> {
    let hash = ContentHash::of(header.as_bytes());
    let mut file = format!("skipc-artefact\nversion 00007\nheader {:08} {hash}\n{header}", header.len());
    file.extend(std::iter::repeat_n('\0', 4096 - file.len()));
    [file.as_bytes(), rest].concat()
}

fn golden_header(edit: impl Fn(&str) -> String) -> Vec<u8> {
    let file = golden();
    let text: Vec<u8> = file[110..].iter().copied().take_while(|&byte| byte != 0).collect();
    let text = String::from_utf8(text).unwrap();
    let edited = edit(&text);
    assert_ne!(text, edited, "the edit must change the header");
    forged(&edited, &file[4096..])
}

#[test]
fn what_was_written_is_read() {
    let file = golden();
    assert_eq!(file, golden());
    let artifact = Artifact::parse(&file).unwrap();
    assert_eq!(artifact.manifest(), &manifest());
    assert_eq!(artifact.section("spec.toml", SectionKind::Spec).unwrap(), b"[model]\n");
    assert_eq!(artifact.section("empty", SectionKind::Constants).unwrap(), b"");
    let names: Vec<_> = artifact.sections().iter().map(|section| section.name.as_str()).collect();
    assert_eq!(names, ["spec.toml", "cpu/x86-64.code", "empty", "cpu/x86-64-v3.code"]);
    let offsets: Vec<_> = artifact.sections().iter().map(|section| section.offset).collect();
    assert_eq!(offsets, [4096, 8192, 12288, 8192], "equal contents share one place");
    assert_eq!(artifact.section("nothing", SectionKind::Spec).unwrap_err().code(), "artifact::missing");
    assert_eq!(artifact.section("empty", SectionKind::Spec).unwrap_err().code(), "artifact::kind");
    assert!(file.starts_with(b"skipc-artefact\nversion 00007\nheader 0000"));
    // Another hash means another format: raise the version with it.
    let pinned = "b9c3ac747b9b509ad3d0eb6c0be4eeb32f600c81e64d46a8cd5322ce974b3de5";
    assert_eq!(ContentHash::of(&file).to_string(), pinned);
}

#[test]
fn every_edit_of_one_byte_is_refused() {
    let mut file = golden();
    for at in 0..file.len() {
        for mask in [1, 0x80] {
            file[at] ^= mask;
            assert!(Artifact::parse(&file).is_err(), "byte {at} xor {mask:#x} was accepted");
            file[at] ^= mask;
        }
    }
    assert!(Artifact::parse(&file).is_ok());
}

#[test]
fn every_cut_and_every_longer_file_is_refused() {
    let mut file = golden();
    for length in 0..file.len() {
        assert_eq!(code_of(&file[..length]), "artifact::truncated", "cut to {length} bytes");
    }
    file.push(0);
    assert_eq!(code_of(&file), "artifact::trailing");
}

#[test]
fn each_fault_has_its_code() {
    let edited = |at: usize, to: &[u8]| {
        let mut file = golden();
        file[at..at + to.len()].copy_from_slice(to);
        file
    };
    assert_eq!(code_of(b"PK\x03\x04"), "artifact::magic");
    assert_eq!(code_of(&edited(15, b"version 00008")), "artifact::version");
    // What the compilers before this format wrote.
    let old = Artifact::parse(edited(15, b"version 00006")).expect_err("an old artefact");
    assert_eq!(old.code(), "artifact::version");
    assert!(old.to_string().contains("format 00006 is not supported: this reader knows format 7"), "{old}");
    assert_eq!(code_of(&edited(15, b"version +0001")), "artifact::version");
    assert_eq!(code_of(&edited(36, b"99999999")), "artifact::limit");
    assert_eq!(code_of(&edited(36, b"0000 123")), "artifact::preamble");
    assert_eq!(code_of(&edited(200, b"?")), "artifact::hash");
    assert_eq!(code_of(&edited(4095, b"?")), "artifact::padding");
    let Err(Error::Hash { section }) = Artifact::parse(&edited(8192, b"?")) else { panic!("accepted") };
    assert_eq!(section, "cpu/x86-64.code");
}

#[test]
fn a_forged_header_is_refused_by_what_it_says() {
    let cases: &[(&str, &str, &str)] = &[
        ("\"offset\": 8192", "\"offset\": 8193", "artifact::layout"),
        ("\"offset\": 8192", "\"offset\": 4096", "artifact::layout"),
        ("\"length\": 70", "\"length\": 18446744073709551615", "artifact::limit"),
        ("\"length\": 70", "\"length\": 9000000000000000000", "artifact::truncated"),
        ("\"length\": 70", "\"length\": -1", "artifact::header"),
        ("\"name\": \"empty\"", "\"name\": \"spec.toml\"", "artifact::duplicate"),
        ("\"name\": \"empty\"", "\"name\": \"../../etc\"", "artifact::section-name"),
        ("\"kind\": \"spec\"", "\"kind\": \"speck\"", "artifact::header"),
        ("\"model\":", "\"unknown\": 1, \"model\":", "artifact::header"),
    ];
    for (from, to, code) in cases {
        let file = golden_header(|text| text.replacen(from, to, 1));
        assert_eq!(code_of(&file), *code, "{from} -> {to}");
    }
    let deep = "[".repeat(3000);
    assert_eq!(code_of(&forged(&deep, b"")), "artifact::header");
}

#[test]
fn a_writer_refuses_what_a_reader_would() {
    let mut writer = Writer::new(manifest());
    writer.section("a", SectionKind::Spec, Vec::new()).unwrap();
    let mut again = |name: &str| writer.section(name, SectionKind::Spec, Vec::new()).unwrap_err().code();
    assert_eq!(again("a"), "artifact::duplicate");
    for name in ["", "/a", "a//b", "a b", "..", "a/../b", "ä"] {
        assert_eq!(again(name), "artifact::section-name", "{name:?}");
    }
}

#[test]
fn a_file_is_replaced_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.skp");
    std::fs::write(&path, b"old").unwrap();
    let broken = skipc_artifact::replace::file(&path, |out| {
        out.write_all(b"half")?;
        Err(std::io::Error::other("disk full"))
    });
    assert_eq!(broken.unwrap_err().code(), "artifact::io");
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    Writer::new(manifest()).write(&path).unwrap();
    assert!(Artifact::parse(&std::fs::read(&path).unwrap()).is_ok());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
}

proptest! {
    #[test]
    fn noise_is_refused(tail in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..200) {
        let file = golden();
        let file = [&file[..cut], &tail].concat();
        prop_assert!(Artifact::parse(&file).is_err());
    }
}
