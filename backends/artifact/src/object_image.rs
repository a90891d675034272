//! Lays a relocatable object into a position-independent image.
//!
//! Taken: ELF objects for x86-64 and 64-bit Arm, as Cranelift and LLVM write them for position-independent code.
//! Sections of code and of read-only data go into the image one after the other, each at its own alignment. Unwind
//! tables are left out, since nothing unwinds through a kernel; debug information and notes too.
//! Every reference must be relative to the place that refers and its target must lie in the image, so that it has
//! its final value now. Loads of an address from a global offset table become computations of that address.
//! All else is refused by the name of the symbol: a runtime that had to link could fail where the compiler cannot
//! see it.

use std::collections::BTreeMap;

use object::elf;
use object::read::elf::ElfFile64;
use object::{
    Architecture, LittleEndian, Object as _, ObjectKind, ObjectSection as _, ObjectSymbol as _,
    RelocationFlags, RelocationTarget, SectionFlags, SectionIndex, SectionKind, SymbolKind,
};

use crate::error::Error;
use crate::image::{HostArch, HostEntry, HostImage, HostLevel, HostTable};

type File<'a> = ElfFile64<'a, LittleEndian>;
type Section<'a, 'f> = object::read::elf::ElfSection64<'a, 'f, LittleEndian>;

/// Images are loaded at multiples of this many bytes, so no section can ask for more.
const MAX_ALIGNMENT: u64 = 4096;

/// Makes an image of `object`, whose code uses the instructions of `level`; its entries are the object's global
/// functions.
///
/// # Errors
///
/// An object that is malformed, for another machine, has writable data, or refers to anything outside of itself
/// or to an absolute address.
pub fn link(object: &[u8], level: HostLevel) -> Result<HostImage, Error> {
    let file = File::parse(object).map_err(malformed)?;
    let arch = match file.architecture() {
        Architecture::X86_64 => HostArch::X86_64,
        Architecture::Aarch64 => HostArch::Aarch64,
        other => {
            return Err(Error::Object { reason: format!("code for {other:?}, expected x86-64 or aarch64") });
        }
    };
    if file.kind() != ObjectKind::Relocatable {
        return Err(Error::Object { reason: "it is not relocatable".into() });
    }
    let mut code = Vec::new();
    let mut placed = BTreeMap::new();
    for section in file.sections() {
        if is_loaded(&section)? {
            placed.insert(section.index().0, place(&section, &mut code)?);
        }
    }
    for section in file.sections() {
        if let Some(&base) = placed.get(&section.index().0) {
            relocate(&file, arch, &section, base, &placed, &mut code)?;
        }
    }
    let table = HostTable { arch, level, entries: entries(&file, &placed)? };
    table.check(code.len())?;
    Ok(HostImage { code, table })
}

fn malformed(error: object::Error) -> Error {
    Error::Object { reason: error.to_string() }
}

/// Whether the image holds the section.
fn is_loaded(section: &Section<'_, '_>) -> Result<bool, Error> {
    let SectionFlags::Elf { sh_flags, .. } = section.flags() else { return Ok(false) };
    let name = section.name().map_err(malformed)?;
    let left_out = matches!(section.kind(), SectionKind::Note) || name == ".eh_frame";
    if sh_flags.0 & elf::SHF_ALLOC.0 == 0 || left_out || section.size() == 0 {
        return Ok(false);
    }
    if sh_flags.0 & (elf::SHF_WRITE.0 | elf::SHF_TLS.0) != 0 {
        return Err(Error::WritableData { section: name.into() });
    }
    Ok(true)
}

/// Appends the section to the image at its alignment; returns its offset.
fn place(section: &Section<'_, '_>, code: &mut Vec<u8>) -> Result<usize, Error> {
    let align = section.align().max(1);
    if !align.is_power_of_two() || align > MAX_ALIGNMENT {
        return Err(Error::Object { reason: format!("a section is aligned to {align} bytes") });
    }
    let base = code.len().next_multiple_of(align as usize);
    code.resize(base, 0);
    code.extend(section.data().map_err(malformed)?);
    Ok(base)
}

fn entries(file: &File<'_>, placed: &BTreeMap<usize, usize>) -> Result<Vec<HostEntry>, Error> {
    let mut entries = Vec::new();
    for symbol in file.symbols() {
        if symbol.kind() != SymbolKind::Text || !symbol.is_global() || !symbol.is_definition() {
            continue;
        }
        if let Some(base) = symbol.section_index().and_then(|SectionIndex(idx)| placed.get(&idx)) {
            let offset = (*base as u64).wrapping_add(symbol.address());
            entries.push(HostEntry { name: symbol.name().map_err(malformed)?.into(), offset });
        }
    }
    entries.sort_by(|a, b| (a.offset, &a.name).cmp(&(b.offset, &b.name)));
    Ok(entries)
}

fn relocate(
    file: &File<'_>,
    arch: HostArch,
    section: &Section<'_, '_>,
    base: usize,
    placed: &BTreeMap<usize, usize>,
    code: &mut [u8],
) -> Result<(), Error> {
    let from = section.name().map_err(malformed)?;
    for (offset, relocation) in section.relocations() {
        let RelocationFlags::Elf { r_type } = relocation.flags() else { continue };
        let RelocationTarget::Symbol(idx) = relocation.target() else {
            return Err(Error::Object { reason: format!("a reference without a symbol in `{from}`") });
        };
        let symbol = file.symbol_by_index(idx).map_err(malformed)?;
        let place = (base as u64).wrapping_add(offset);
        let target = symbol.section_index().and_then(|SectionIndex(idx)| placed.get(&idx));
        // A section symbol has no name of its own; its section's says what is meant.
        let name = || match (symbol.kind(), symbol.section_index()) {
            (SymbolKind::Section, Some(idx)) => {
                file.section_by_index(idx).and_then(|it| it.name().map(String::from)).unwrap_or_default()
            }
            _ => symbol.name().unwrap_or_default().to_string(),
        };
        let Some(&target) = target else {
            return Err(Error::UndefinedSymbol { symbol: name(), section: from.into() });
        };
        let value = (target as u64).wrapping_add(symbol.address()).wrapping_add_signed(relocation.addend());
        let site = Site { place, value, addend: relocation.addend() };
        let applied = match arch {
            HostArch::X86_64 => site.apply_x86_64(code, r_type),
            HostArch::Aarch64 => site.apply_aarch64(code, r_type),
        };
        applied.ok_or_else(|| Error::Relocation {
            symbol: name(),
            section: from.into(),
            relocation: relocation_name(arch, r_type),
        })?;
    }
    Ok(())
}

fn relocation_name(arch: HostArch, r_type: elf::RelocationType) -> String {
    match (arch, r_type) {
        (HostArch::X86_64, elf::R_X86_64_64) => "R_X86_64_64".into(),
        (HostArch::X86_64, elf::R_X86_64_32S) => "R_X86_64_32S".into(),
        (HostArch::X86_64, elf::R_X86_64_GOTPCREL) => "R_X86_64_GOTPCREL".into(),
        (HostArch::X86_64, elf::R_X86_64_GOTPCRELX) => "R_X86_64_GOTPCRELX".into(),
        (HostArch::X86_64, elf::R_X86_64_TLSGD) => "R_X86_64_TLSGD".into(),
        (HostArch::Aarch64, elf::R_AARCH64_ABS64) => "R_AARCH64_ABS64".into(),
        _ => format!("{arch:?} relocation {}", r_type.0),
    }
}

/// One reference: where it stands and what it refers to, both in bytes from the start of the image.
struct Site {
    place: u64,
    /// Offset of the target with the addend.
    value: u64,
    addend: i64,
}

impl Site {
    /// Distance from the place to the value.
    fn distance(&self) -> i64 {
        self.value.wrapping_sub(self.place) as i64
    }

    fn word(&self, code: &[u8]) -> Option<u32> {
        let at = usize::try_from(self.place).ok()?;
        Some(u32::from_le_bytes(code.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }

    fn store(&self, code: &mut [u8], word: u32) -> Option<()> {
        let at = usize::try_from(self.place).ok()?;
        code.get_mut(at..at.checked_add(4)?)?.copy_from_slice(&word.to_le_bytes());
        Some(())
    }

    /// `None` if the relocation is not one of those that can be applied.
    fn apply_x86_64(&self, code: &mut [u8], r_type: elf::RelocationType) -> Option<()> {
        match r_type {
            elf::R_X86_64_PC32 | elf::R_X86_64_PLT32 => {}
            elf::R_X86_64_GOTPCREL | elf::R_X86_64_GOTPCRELX | elf::R_X86_64_REX_GOTPCRELX => {
                // `mov reg, [rip + slot]` with a REX.W prefix becomes `lea reg, [rip + target]`: same length, same
                // register. Other instructions read the slot in ways that have no such twin.
                let before = usize::try_from(self.place).ok()?.checked_sub(3)?;
                let &mut [rex, ref mut opcode, modrm] = code.get_mut(before..before + 3)? else {
                    return None;
                };
                let is_load = rex & 0xf8 == 0x48 && *opcode == 0x8b && modrm & 0xc7 == 0x05;
                if !is_load || self.addend != -4 {
                    return None;
                }
                *opcode = 0x8d;
            }
            _ => return None,
        }
        self.store(code, i32::try_from(self.distance()).ok()? as u32)
    }

    /// `None` if the relocation is not one of those that can be applied.
    fn apply_aarch64(&self, code: &mut [u8], r_type: elf::RelocationType) -> Option<()> {
        let word = self.word(code)?;
        match r_type {
            elf::R_AARCH64_PREL32 => self.store(code, i32::try_from(self.distance()).ok()? as u32),
            elf::R_AARCH64_CALL26 | elf::R_AARCH64_JUMP26 => {
                let words = signed_field(self.distance(), 2, 26)?;
                self.store(code, word & !0x03ff_ffff | words)
            }
            // The image lies on a page border, so pages of the image are pages of memory.
            elf::R_AARCH64_ADR_PREL_PG_HI21 | elf::R_AARCH64_ADR_GOT_PAGE => {
                let pages = (self.value >> 12).wrapping_sub(self.place >> 12) as i64;
                let pages = signed_field(pages, 0, 21)?;
                self.store(code, word & !0x60ff_ffe0 | (pages & 3) << 29 | (pages >> 2) << 5)
            }
            elf::R_AARCH64_ADD_ABS_LO12_NC => {
                self.store(code, word & !0x003f_fc00 | (self.value as u32 & 0xfff) << 10)
            }
            // `ldr x, [x, slot]` becomes `add x, x, target`.
            elf::R_AARCH64_LD64_GOT_LO12_NC if word & 0xffc0_0000 == 0xf940_0000 => {
                self.store(code, 0x9100_0000 | word & 0x3ff | (self.value as u32 & 0xfff) << 10)
            }
            _ => None,
        }
    }
}

/// `value >> shift` as a two's complement field of `bits` bits; `None` if it does not fit or bits would be lost.
fn signed_field(value: i64, shift: u32, bits: u32) -> Option<u32> {
    let field = value >> shift;
    let limit = 1i64 << (bits - 1);
    let fits = field << shift == value && (-limit..limit).contains(&field);
    fits.then_some((field as u32) & ((1 << bits) - 1))
}
