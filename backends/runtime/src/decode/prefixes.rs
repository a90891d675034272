//! Which full pages hold what sequences begin with, so that others that begin alike find them.

use std::collections::BTreeMap;

use skipc_artifact::program::PAGE_ROWS;

/// What stands before a page: the number of a sequence, on which decisions may depend, or a page that is known itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Before {
    /// Nothing, in a sequence of this number.
    Nothing(u32),
    /// This page.
    Page(u32),
}

/// What a page is known by: what stands before it, and its own tokens.
type PageKey = (Before, [u32; PAGE_ROWS as usize]);

/// A tree of pages. A page is known by all tokens up to its end, compared one by one.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    pages: BTreeMap<PageKey, u32>,
    known: BTreeMap<u32, Known>,
    /// All pages by their last use.
    by_use: BTreeMap<u64, u32>,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug)]
struct Known {
    key: PageKey,
    last_use: u64,
    /// How many known pages stand right after it.
    n_after: u32,
}

impl Prefixes {
    /// The page with these tokens after `before`.
    pub(super) fn find(&mut self, before: Before, tokens: [u32; PAGE_ROWS as usize]) -> Option<u32> {
        let page = *self.pages.get(&(before, tokens))?;
        self.clock += 1;
        if let Some(known) = self.known.get_mut(&page) {
            self.by_use.remove(&known.last_use);
            known.last_use = self.clock;
            self.by_use.insert(self.clock, page);
        }
        Some(page)
    }

    /// Makes a page known that is not.
    pub(super) fn insert(&mut self, (before, tokens): PageKey, page: u32) {
        self.clock += 1;
        let key = (before, tokens);
        self.pages.insert(key, page);
        self.by_use.insert(self.clock, page);
        self.known.insert(page, Known { key, last_use: self.clock, n_after: 0 });
        if let Before::Page(before) = before
            && let Some(known) = self.known.get_mut(&before)
        {
            known.n_after += 1;
        }
    }

    /// Forgets the page that was not used for longest, of those that are idle and that no known page stands after.
    pub(super) fn forget_oldest(&mut self, is_idle: impl Fn(u32) -> bool) -> Option<u32> {
        let is_end = |page: &u32| self.known.get(page).is_some_and(|known| known.n_after == 0);
        let page = self.by_use.values().copied().find(|page| is_end(page) && is_idle(*page))?;
        let Known { key, last_use, .. } = self.known.remove(&page)?;
        self.by_use.remove(&last_use);
        self.pages.remove(&key);
        if let Before::Page(before) = key.0
            && let Some(known) = self.known.get_mut(&before)
        {
            known.n_after -= 1;
        }
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_known_by_all_that_stands_before_it() {
        let mut prefixes = Prefixes::default();
        let root = Before::Nothing(0);
        let [a, b] = [[1; PAGE_ROWS as usize], [2; PAGE_ROWS as usize]];
        prefixes.insert((root, a), 7);
        prefixes.insert((Before::Page(7), b), 8);
        assert_eq!((prefixes.find(root, a), prefixes.find(Before::Page(7), b)), (Some(7), Some(8)));
        assert_eq!((prefixes.find(root, b), prefixes.find(Before::Nothing(1), a)), (None, None));
        assert_eq!(prefixes.find(Before::Page(8), b), None);
    }

    #[test]
    fn ends_are_forgotten_first_the_oldest_of_them() {
        let mut prefixes = Prefixes::default();
        let root = Before::Nothing(0);
        let [a, b, c] = [1, 2, 3].map(|token| [token; PAGE_ROWS as usize]);
        prefixes.insert((root, a), 0);
        prefixes.insert((Before::Page(0), b), 1);
        prefixes.insert((root, c), 2);
        prefixes.find(Before::Page(0), b);
        assert_eq!(prefixes.forget_oldest(|page| page != 2), Some(1), "0 has another after it");
        prefixes.find(root, a);
        assert_eq!(prefixes.forget_oldest(|_| true), Some(2));
        assert_eq!((prefixes.find(root, c), prefixes.forget_oldest(|_| false)), (None, None));
        assert_eq!((prefixes.forget_oldest(|_| true), prefixes.forget_oldest(|_| true)), (Some(0), None));
    }
}
