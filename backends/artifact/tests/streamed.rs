//! Sections that are made while they are written, sections in a second file, and headers that are read alone.

use std::io;
use std::path::{Path, PathBuf};

use skipc_artifact::Error;
use skipc_artifact::manifest::{Manifest, Promises};
use skipc_artifact::reader::{Artifact, Index, Sections};
use skipc_artifact::section::{ContentHash, SectionKind};
use skipc_artifact::writer::{Content, Writer};
use tempfile::TempDir;

fn manifest() -> Manifest {
    Manifest {
        model: "tiny".into(),
        compiler: "0.1.0".into(),
        llvm: None,
        ptxas: None,
        flags: Vec::new(),
        spec_hash: ContentHash::of(b"spec"),
        weights_hash: ContentHash::of(b"weights"),
        targets: vec!["cpu".into()],
        promises: Promises { device_resident: true, causal: true },
    }
}

/// The bytes of some constants, more than a page.
fn constants(seed: u8) -> Vec<u8> {
    (0..5000u32).map(|idx| (idx % 251) as u8 ^ seed).collect()
}

/// Constants that come in pieces of 7 bytes.
fn made(seed: u8) -> Content<'static> {
    let make =
        move |out: &mut dyn io::Write| constants(seed).chunks(7).try_for_each(|piece| out.write_all(piece));
    Content::Made { length: 5000, make: Box::new(make) }
}

/// Three programs, of which the last has the constants of the first.
fn writer(of: impl Fn(u8) -> Content<'static>, shared: Content<'static>) -> Writer<'static> {
    let mut writer = Writer::new(manifest());
    writer.section("spec.toml", SectionKind::Spec, &b"[model]\n"[..]).unwrap();
    writer.section("a/constants", SectionKind::Constants, of(1)).unwrap();
    writer.section("a/code.ptx", SectionKind::Ptx, &b"code"[..]).unwrap();
    writer.section("b/constants", SectionKind::Constants, of(2)).unwrap();
    writer.section("c/constants", SectionKind::Constants, shared).unwrap();
    writer
}

fn streamed() -> Writer<'static> {
    writer(made, Content::Same { section: "a/constants".into() })
}

/// Both files of the same artefact, in a folder.
fn two_files() -> (TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (path, external) = (folder.path().join("m.skp"), folder.path().join("m.skw"));
    let lengths = streamed().write_with_external(&path, &external).unwrap();
    let length = |path: &Path| std::fs::metadata(path).unwrap().len();
    assert_eq!(lengths, [length(&path), length(&external)]);
    (folder, path, external)
}

#[test]
fn what_is_made_while_it_is_written_has_the_same_bytes() {
    let in_memory = writer(|seed| constants(seed).into(), constants(1).into()).to_bytes().unwrap();
    assert_eq!(streamed().to_bytes().unwrap(), in_memory);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.skp");
    assert_eq!(streamed().write(&path).unwrap(), in_memory.len() as u64);
    assert_eq!(std::fs::read(&path).unwrap(), in_memory);
}

#[test]
fn what_is_not_made_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.skp");
    let refused = |content: Content<'_>| {
        let mut writer = Writer::new(manifest());
        writer.section("a/constants", SectionKind::Constants, content).unwrap();
        let error = writer.write(&path).unwrap_err();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{error}");
        let Error::Io { source, .. } = error else { panic!("{error}") };
        source
    };
    let short = |out: &mut dyn io::Write| out.write_all(b"four");
    let source = refused(Content::Made { length: 5, make: Box::new(short) });
    assert!(source.to_string().contains("4 bytes, it has 5"), "{source}");
    let broken = |_: &mut dyn io::Write| Err(io::Error::new(io::ErrorKind::InvalidData, "no tensor"));
    assert_eq!(
        refused(Content::Made { length: 5, make: Box::new(broken) }).kind(),
        io::ErrorKind::InvalidData
    );
    let same = Content::Same { section: "b/constants".into() };
    let error = Writer::new(manifest()).section("a/constants", SectionKind::Constants, same).unwrap_err();
    assert_eq!(error.code(), "artifact::missing");
}

#[test]
fn constants_can_lie_in_a_second_file() {
    let (_folder, path, external) = two_files();
    let (file, second) = (std::fs::read(&path).unwrap(), std::fs::read(&external).unwrap());
    let whole = Artifact::parse(streamed().to_bytes().unwrap()).unwrap();
    let artifact = Artifact::parse_with::<Error>(&file, |named| {
        assert_eq!((named.file.as_str(), named.length), ("m.skw", second.len() as u64));
        Ok(&second)
    });
    let artifact = artifact.unwrap();
    for entry in whole.sections() {
        let bytes = artifact.section(&entry.name, entry.kind).unwrap();
        assert_eq!(bytes, whole.section(&entry.name, entry.kind).unwrap(), "{}", entry.name);
    }
    // The shared ones stand there once.
    assert_eq!(second.len(), 8192 + 5000);
    assert!(file.len() < 3 * 4096);
    let error = Artifact::parse(&file).unwrap_err();
    assert_eq!(error.code(), "artifact::external");
    assert!(error.to_string().contains("m.skw"), "{error}");
}

#[test]
fn every_edit_of_the_second_file_is_refused() {
    let (_folder, path, external) = two_files();
    let (file, mut second) = (std::fs::read(&path).unwrap(), std::fs::read(&external).unwrap());
    let parse =
        |second: &[u8]| Artifact::parse_with::<Error>(file.clone(), |_| Ok(second.to_vec())).map(drop);
    for at in 0..second.len() {
        second[at] ^= 1;
        let error = parse(&second).expect_err("it was edited");
        // Between sections are zeros.
        let code = if (5000..8192).contains(&at) { "artifact::padding" } else { "artifact::external" };
        assert_eq!(error.code(), code, "byte {at}: {error}");
        second[at] ^= 1;
    }
    for length in [0, 1, 5000, 8192, second.len() - 1] {
        assert_eq!(parse(&second[..length]).unwrap_err().code(), "artifact::external", "{length} bytes");
    }
    assert_eq!(parse(&[&second[..], b"0"].concat()).unwrap_err().code(), "artifact::external");
    assert!(parse(&second).is_ok());
}

#[test]
fn the_second_file_lies_in_no_other_folder() {
    let (folder, path, _) = two_files();
    for name in ["..", "a/b", ""] {
        let error = streamed().write_with_external(&path, &folder.path().join(name).join("..")).unwrap_err();
        assert_eq!(error.code(), "artifact::external", "{name}");
    }
    let file = std::fs::read(&path).unwrap();
    let text =
        String::from_utf8(file[110..].iter().copied().take_while(|byte| *byte != 0).collect()).unwrap();
    for (from, to) in [("m.skw\"", "../w\""), ("\"file\": \"m.skw\",", "")] {
        let edited = text.replacen(from, to, 1);
        assert_ne!(edited, text);
        let hash = ContentHash::of(edited.as_bytes());
        let mut forged =
            format!("skipc-artefact\nversion 00007\nheader {:08} {hash}\n{edited}", edited.len());
        forged.extend(std::iter::repeat_n('\0', 4096 - forged.len()));
        let error = Artifact::parse_with::<Error>(forged.into_bytes(), |_| Ok(Vec::new())).unwrap_err();
        assert!(["artifact::external", "artifact::header"].contains(&error.code()), "{to}: {error}");
    }
}

#[test]
fn an_index_reads_what_it_is_asked_for() {
    let (folder, path, _) = two_files();
    let index = Index::open(&path).unwrap();
    assert_eq!(index.header().manifest, manifest());
    assert_eq!(index.read("spec.toml", SectionKind::Spec).unwrap().as_ref(), b"[model]\n");
    assert_eq!(index.read("spec.toml", SectionKind::Ptx).unwrap_err().code(), "artifact::kind");
    assert_eq!(index.read("a/constants", SectionKind::Constants).unwrap_err().code(), "artifact::external");
    let whole = folder.path().join("whole.skp");
    let mut bytes = streamed().to_bytes().unwrap();
    let at = |index: &Index, name: &str, kind| index.entry(name, kind).unwrap().offset as usize;
    std::fs::write(&whole, &bytes).unwrap();
    let index = Index::open(&whole).unwrap();
    assert_eq!(index.read("b/constants", SectionKind::Constants).unwrap().as_ref(), constants(2));
    bytes[at(&index, "a/constants", SectionKind::Constants)] ^= 1;
    std::fs::write(&whole, &bytes).unwrap();
    let index = Index::open(&whole).unwrap();
    assert!(index.read("a/code.ptx", SectionKind::Ptx).is_ok());
    assert_eq!(index.read("a/constants", SectionKind::Constants).unwrap_err().code(), "artifact::hash");
    for length in [0, 50, 200, bytes.len() - 1] {
        std::fs::write(&whole, &bytes[..length]).unwrap();
        assert_eq!(Index::open(&whole).unwrap_err().code(), "artifact::truncated", "{length} bytes");
    }
    assert_eq!(Index::open(&folder.path().join("none")).unwrap_err().code(), "artifact::io");
}
