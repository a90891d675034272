//! What comes from outside: crates by `.cargo/deny.toml`, and files that set-up fetches, each by its hash.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::Metadata;
use toml_edit::{DocumentMut, Item, TableLike, Value};

/// What `.cargo/deny.toml` allows.
pub(crate) struct Policy {
    licences: BTreeSet<String>,
    /// Licences of crates that say none, by their names.
    clarified: BTreeMap<String, String>,
    /// `name@version`, older than the newest and known.
    older: BTreeSet<String>,
    registries: BTreeSet<String>,
}

impl Policy {
    /// Reads the policy's text.
    pub(crate) fn parse(text: &str) -> Policy {
        let policy: DocumentMut = text.parse().expect("the policy should be TOML");
        let words = |item: &Item| -> BTreeSet<String> {
            let items = item.as_array().into_iter().flatten();
            items.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let word = |table: &dyn TableLike, key: &str| {
            table.get(key).and_then(Item::as_str).expect("the policy names a crate").to_owned()
        };
        let clarified = policy["licenses"]["clarify"].as_array_of_tables().into_iter().flatten();
        let older = policy["bans"]["skip"].as_array().into_iter().flatten();
        let older = older.filter_map(Value::as_inline_table);
        Policy {
            licences: words(&policy["licenses"]["allow"]),
            clarified: clarified.map(|table| (word(table, "crate"), word(table, "expression"))).collect(),
            older: older.map(|table| word(table, "crate")).collect(),
            registries: words(&policy["sources"]["allow-registry"]),
        }
    }

    /// Crates of others under licences that are not allowed.
    pub(crate) fn wrong_licences(&self, metadata: &Metadata) -> Vec<String> {
        let others = metadata.packages.iter().filter(|package| package.source.is_some());
        let says = |package: &cargo_metadata::Package| {
            package.license.clone().or_else(|| self.clarified.get(package.name.as_str()).cloned())
        };
        others
            .filter(|package| !says(package).is_some_and(|licence| self.allows(&licence)))
            .map(|package| {
                let licence = says(package).unwrap_or_else(|| "no licence".to_owned());
                format!("{} {}: {licence} (.cargo/deny.toml)", package.name, package.version)
            })
            .collect()
    }

    /// Whether an SPDX expression can be met with what is allowed. `/` is an old way to write `OR`.
    fn allows(&self, expression: &str) -> bool {
        let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
        let mut words = spaced.split_whitespace().peekable();
        self.any_of(&mut words) && words.next().is_none()
    }

    fn any_of<'a>(&self, words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> bool {
        let mut allowed = self.all_of(words);
        while words.next_if_eq(&"OR").is_some() {
            allowed |= self.all_of(words);
        }
        allowed
    }

    fn all_of<'a>(&self, words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> bool {
        let mut allowed = self.one(words);
        while words.next_if_eq(&"AND").is_some() {
            allowed &= self.one(words);
        }
        allowed
    }

    fn one<'a>(&self, words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> bool {
        if words.next_if_eq(&"(").is_some() {
            let allowed = self.any_of(words);
            return words.next_if_eq(&")").is_some() && allowed;
        }
        let Some(mut licence) = words.next().map(str::to_owned) else { return false };
        if words.next_if_eq(&"WITH").is_some() {
            licence += &format!(" WITH {}", words.next().unwrap_or_default());
        }
        self.licences.contains(&licence)
    }

    /// What a lock file takes from elsewhere, without a hash, or in more versions than are known.
    pub(crate) fn wrong_locks(&self, lock: &str) -> Vec<String> {
        let lock: DocumentMut = lock.parse().expect("the lock file should be TOML");
        let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut found = Vec::new();
        for package in lock["package"].as_array_of_tables().into_iter().flatten() {
            let word = |key: &str| package.get(key).and_then(Item::as_str).unwrap_or_default();
            let (name, version, source) = (word("name"), word("version"), word("source"));
            versions.entry(name.to_owned()).or_default().push(version.to_owned());
            let registry = source.strip_prefix("registry+").unwrap_or(source);
            if !source.is_empty() && !self.registries.contains(registry) {
                found.push(format!("{name} {version} comes from {source} (.cargo/deny.toml)"));
            }
            if !source.is_empty() && word("checksum").is_empty() {
                found.push(format!("{name} {version} has no checksum"));
            }
        }
        let mut known = self.older.clone();
        for (name, mut versions) in versions {
            versions.sort_by_key(|version| numbers(version));
            versions.pop();
            let unknown = versions.into_iter().filter(|version| !known.remove(&format!("{name}@{version}")));
            found.extend(
                unknown.map(|version| {
                    format!("{name} {version} is there beside a newer one (.cargo/deny.toml)")
                }),
            );
        }
        found.extend(known.into_iter().map(|gone| format!(".cargo/deny.toml: {gone} no longer exists")));
        found
    }
}

/// A version to sort by.
fn numbers(version: &str) -> Vec<u64> {
    version.split(['.', '-', '+']).map(|number| number.parse().unwrap_or(0)).collect()
}

/// Whether a file lists what set-up fetches from PyPI.
pub(crate) fn is_list(path: &str) -> bool {
    ["requirements.txt", "cuda-tools.txt"].iter().any(|name| path.rsplit('/').next() == Some(name))
}

/// Requirements without an exact version and a hash.
pub(crate) fn loose_requirements(path: &str, text: &str) -> Vec<String> {
    let whole = text.replace("\\\n", " ");
    let lines = whole.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .filter(|line| !(line.contains("==") && line.contains(" --hash=sha256:")))
        .map(|line| format!("{path}: `{line}` needs a version and its hashes"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy::parse(
            "[licenses]\nallow = [\"MIT\", \"ISC\", \"Apache-2.0 WITH LLVM-exception\"]\n\
             [[licenses.clarify]]\ncrate = \"silent\"\nexpression = \"MIT\"\n\
             [bans]\nskip = [{ crate = \"a@1.0.0\", reason = \"x\" }]\n\
             [sources]\nallow-registry = [\"https://here\"]\n",
        )
    }

    #[test]
    fn expressions_need_one_way_that_is_allowed() {
        let policy = policy();
        for good in
            ["MIT", "GPL-3.0 OR MIT", "MIT/GPL-3.0", "(MIT OR X) AND ISC", "Apache-2.0 WITH LLVM-exception"]
        {
            assert!(policy.allows(good), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0", "(MIT", "MIT ISC", "X OR (MIT AND Y)"] {
            assert!(!policy.allows(bad), "{bad}");
        }
    }

    #[test]
    fn locks_name_known_versions_by_hash() {
        let package = |name: &str, version: &str, more: &str| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n{more}\n")
        };
        let here = "source = \"registry+https://here\"\nchecksum = \"1\"";
        let sound =
            package("a", "1.0.0", here) + &package("a", "1.10.0", here) + &package("own", "0.1.0", "");
        assert_eq!(policy().wrong_locks(&sound), [""; 0]);
        let cases = [
            (package("a", "1.10.0", here), "a@1.0.0 no longer exists"),
            (sound.clone() + &package("a", "1.9.0", here), "a 1.9.0 is there beside a newer one"),
            (
                sound.clone() + &package("b", "1.0.0", "source = \"git+https://x\"\nchecksum = \"1\""),
                "git+https://x",
            ),
            (sound + &package("b", "1.0.0", "source = \"registry+https://here\""), "no checksum"),
        ];
        for (lock, says) in cases {
            let found = policy().wrong_locks(&lock).join("\n");
            assert!(found.contains(says), "{says}: {found}");
        }
    }

    #[test]
    fn requirements_have_hashes() {
        let sound = "# what\nnumpy==1.0 \\\n    --hash=sha256:ab \\\n    --hash=sha256:cd\n";
        assert_eq!(loose_requirements("x", sound), [""; 0]);
        for loose in ["numpy", "numpy>=1", "numpy==1.0", "--find-links /somewhere"] {
            assert_eq!(loose_requirements("x", loose).len(), 1, "{loose}");
        }
        assert!(is_list("tests/cuda-tools.txt") && !is_list("tests/golden/genesis.txt"));
    }
}
