//! Objects as code generators write them become images, or are refused by the name of the symbol.

use object::write::{Object, Relocation, StandardSection, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SymbolFlags, SymbolKind, SymbolScope, elf,
};
use skipc_artifact::image::{HostArch, HostImage, HostLevel};

fn link(object: &[u8]) -> Result<HostImage, skipc_artifact::Error> {
    skipc_artifact::object_image::link(object, HostLevel::Baseline)
}

struct Builder(Object<'static>);

impl Builder {
    fn new(arch: Architecture) -> Self {
        Self(Object::new(BinaryFormat::Elf, arch, Endianness::Little))
    }

    fn define(&mut self, name: &str, section: StandardSection, bytes: &[u8], align: u64) -> SymbolId {
        let kind = if section == StandardSection::Text { SymbolKind::Text } else { SymbolKind::Data };
        let section = self.0.section_id(section);
        let symbol = self.symbol(name, kind, SymbolSection::Section(section));
        self.0.add_symbol_data(symbol, section, bytes, align);
        symbol
    }

    fn symbol(&mut self, name: &str, kind: SymbolKind, section: SymbolSection) -> SymbolId {
        self.0.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value: 0,
            size: 0,
            kind,
            scope: SymbolScope::Dynamic,
            weak: false,
            section,
            flags: SymbolFlags::None,
        })
    }

    fn refer(&mut self, offset: u64, symbol: SymbolId, r_type: elf::RelocationType, addend: i64) {
        let section = self.0.section_id(StandardSection::Text);
        let flags = RelocationFlags::Elf { r_type };
        self.0.add_relocation(section, Relocation { offset, symbol, addend, flags }).unwrap();
    }
}

/// `main: call callee; mov rax, [rip + table@got]; lea rcx, [rip + table]; ret`, `callee: ret`, a table of 8 bytes.
fn x86_64(edit: impl FnOnce(&mut Builder, SymbolId, SymbolId)) -> Vec<u8> {
    let mut object = Builder::new(Architecture::X86_64);
    let main = [
        0xe8, 0, 0, 0, 0, // call
        0x48, 0x8b, 0x05, 0, 0, 0, 0, // mov rax
        0x48, 0x8d, 0x0d, 0, 0, 0, 0, // lea rcx
        0xc3,
    ];
    object.define("main", StandardSection::Text, &main, 16);
    let callee = object.define("callee", StandardSection::Text, &[0xc3], 16);
    let table = object.define("table", StandardSection::ReadOnlyData, &[7; 8], 64);
    object.refer(1, callee, elf::R_X86_64_PLT32, -4);
    object.refer(15, table, elf::R_X86_64_PC32, -4);
    edit(&mut object, callee, table);
    object.0.write().unwrap()
}

#[test]
fn x86_64_references_are_resolved() {
    let object = x86_64(|object, _, table| object.refer(8, table, elf::R_X86_64_REX_GOTPCRELX, -4));
    let image = link(&object).unwrap();
    assert_eq!(image.table.arch, HostArch::X86_64);
    let entries: Vec<_> = image.table.entries.iter().map(|e| (e.name.as_str(), e.offset)).collect();
    assert_eq!(entries, [("main", 0), ("callee", 32)]);
    assert_eq!(image.code.len(), 72, "20 bytes of main, callee at 32, table at 64");
    assert_eq!(image.code[64..], [7; 8]);
    let word = |at: usize| i32::from_le_bytes(image.code[at..at + 4].try_into().unwrap());
    assert_eq!(word(1), 32 - 5, "call, relative to the next instruction");
    assert_eq!(image.code[5..8], [0x48, 0x8d, 0x05], "the load of a slot became lea");
    assert_eq!(word(8), 64 - 12);
    assert_eq!(word(15), 64 - 19);
}

#[test]
fn what_needs_a_loader_is_refused_by_name() {
    let error = link(&x86_64(|object, _, _| {
        let memcpy = object.symbol("memcpy", SymbolKind::Text, SymbolSection::Undefined);
        object.refer(8, memcpy, elf::R_X86_64_PLT32, -4);
    }));
    let error = error.unwrap_err();
    assert_eq!(error.code(), "artifact::undefined-symbol");
    assert!(error.to_string().contains("`memcpy`"), "{error}");

    let error = link(&x86_64(|object, callee, _| object.refer(8, callee, elf::R_X86_64_64, 0))).unwrap_err();
    assert_eq!(error.code(), "artifact::relocation");
    assert!(error.to_string().contains("`callee`") && error.to_string().contains("R_X86_64_64"), "{error}");

    // A reference to a slot from an instruction that is not a plain load.
    let error = link(&x86_64(|object, callee, _| object.refer(15, callee, elf::R_X86_64_GOTPCREL, -4)));
    assert_eq!(error.unwrap_err().code(), "artifact::relocation");

    let error = link(&x86_64(|object, _, _| {
        object.define("counter", StandardSection::Data, &[0; 4], 4);
    }));
    assert_eq!(error.unwrap_err().code(), "artifact::writable-data");
}

#[test]
fn aarch64_references_are_resolved() {
    let mut object = Builder::new(Architecture::Aarch64);
    let main: Vec<u8> = [
        0x9400_0000u32, // bl callee
        0x9000_0000,    // adrp x0, table
        0x9100_0001,    // add x1, x0, :lo12:table
        0xf940_0002,    // ldr x2, [x0, :got_lo12:table]
        0xd65f_03c0,    // ret
    ]
    .iter()
    .flat_map(|word| word.to_le_bytes())
    .collect();
    object.define("main", StandardSection::Text, &main, 16);
    let callee = object.define("callee", StandardSection::Text, &[0; 4096], 16);
    let table = object.define("table", StandardSection::ReadOnlyData, &[7; 8], 64);
    object.refer(0, callee, elf::R_AARCH64_CALL26, 0);
    object.refer(4, table, elf::R_AARCH64_ADR_PREL_PG_HI21, 0);
    object.refer(8, table, elf::R_AARCH64_ADD_ABS_LO12_NC, 0);
    object.refer(12, table, elf::R_AARCH64_LD64_GOT_LO12_NC, 0);
    let image = link(&object.0.write().unwrap()).unwrap();
    assert_eq!(image.table.arch, HostArch::Aarch64);
    let word = |idx: usize| u32::from_le_bytes(image.code[4 * idx..4 * idx + 4].try_into().unwrap());
    // callee at 32, table at 4160 = page 1, offset 64.
    assert_eq!(image.code.len(), 4168);
    assert_eq!(word(0), 0x9400_0000 | 8, "eight words ahead");
    assert_eq!(word(1), 0x9000_0000 | 1 << 29, "one page ahead");
    assert_eq!(word(2), 0x9100_0001 | 64 << 10);
    assert_eq!(word(3), 0x9100_0002 | 64 << 10, "the load of a slot became add");
}

#[test]
fn damaged_objects_are_refused_without_a_panic() {
    let object = x86_64(|_, _, _| ());
    assert!(link(&object).is_ok());
    for length in 0..object.len() {
        let _ = link(&object[..length]);
    }
    let mut edited = object;
    for at in 0..edited.len() {
        edited[at] ^= 0xff;
        let _ = link(&edited);
        edited[at] ^= 0xff;
    }
    assert_eq!(link(b"\x7fELF").unwrap_err().code(), "artifact::object");
}
