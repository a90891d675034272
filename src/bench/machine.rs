//! On what a time was taken.

/// The processor's name as the system gives it, or its kind where it gives none.
pub fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    name(&info).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn name(info: &str) -> Option<String> {
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    let (_, name) = line.split_once(':')?;
    // Vendors pad and repeat blanks.
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_the_first_processor() {
        let info = "processor\t: 0\nmodel name\t: Some  Processor @ 2 GHz \nprocessor\t: 1\n";
        assert_eq!(name(info).as_deref(), Some("Some Processor @ 2 GHz"));
        assert_eq!(name("Features : fp asimd\n"), None);
        assert!(!processor().is_empty());
    }
}
