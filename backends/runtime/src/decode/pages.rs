//! Pages of the caches: who has which.

/// All pages, each with how many have it: sequences, and [`Prefixes`](super::prefixes::Prefixes).
#[derive(Debug)]
pub(super) struct Pages {
    holders: Vec<u32>,
    /// Whether one of the holders is the store of prefixes.
    is_kept: Vec<bool>,
    /// How many pages the store alone holds.
    n_idle: usize,
    free: Vec<u32>,
}

impl Pages {
    /// So many pages, all free. The first ones are taken first.
    pub(super) fn new(n_pages: u32) -> Self {
        let n = n_pages as usize;
        Self { holders: vec![0; n], is_kept: vec![false; n], n_idle: 0, free: (0..n_pages).rev().collect() }
    }

    /// How many nobody has.
    pub(super) fn n_free(&self) -> usize {
        self.free.len()
    }

    /// How many are kept, and no sequence has them.
    pub(super) fn n_idle(&self) -> usize {
        self.n_idle
    }

    /// How many sequences have.
    pub(super) fn n_used(&self) -> usize {
        self.holders.len() - self.free.len() - self.n_idle
    }

    /// A page that nobody has.
    pub(super) fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.holders[page as usize] = 1;
        Some(page)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.holders.len()
    }

    /// Whether the store of prefixes has the page.
    pub(super) fn is_kept(&self, page: u32) -> bool {
        self.is_kept[page as usize]
    }

    /// One more sequence has the page.
    pub(super) fn share(&mut self, page: u32) {
        self.n_idle -= usize::from(self.is_idle(page));
        self.holders[page as usize] += 1;
    }

    /// The store of prefixes has the page, too, which a sequence has.
    pub(super) fn keep(&mut self, page: u32) {
        self.is_kept[page as usize] = true;
        self.holders[page as usize] += 1;
    }

    /// Whether the page is kept, and no sequence has it.
    pub(super) fn is_idle(&self, page: u32) -> bool {
        self.is_kept[page as usize] && self.holders[page as usize] == 1
    }

    /// Frees a page that is idle.
    pub(super) fn give_up(&mut self, page: u32) {
        self.is_kept[page as usize] = false;
        self.n_idle -= 1;
        self.release(page);
    }

    /// Whether several have the page, so that none may write to it.
    pub(super) fn is_shared(&self, page: u32) -> bool {
        self.holders[page as usize] > 1
    }

    /// One sequence less has the page.
    pub(super) fn release(&mut self, page: u32) {
        let holders = &mut self.holders[page as usize];
        *holders -= 1;
        match *holders {
            0 => self.free.push(page),
            1 if self.is_kept[page as usize] => self.n_idle += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_free_when_nobody_has_it() {
        let mut pages = Pages::new(2);
        let (first, second) = (pages.take().unwrap(), pages.take().unwrap());
        assert_eq!((first, second, pages.take()), (0, 1, None));
        pages.share(first);
        assert!(pages.is_shared(first) && !pages.is_shared(second));
        pages.release(first);
        assert_eq!((pages.n_free(), pages.is_shared(first)), (0, false));
        pages.release(first);
        assert_eq!((pages.n_free(), pages.take()), (1, Some(first)));
    }

    #[test]
    fn a_kept_page_is_idle_when_no_sequence_has_it() {
        let mut pages = Pages::new(2);
        let page = pages.take().unwrap();
        pages.keep(page);
        assert_eq!((pages.is_shared(page), pages.n_idle(), pages.n_used()), (true, 0, 1));
        pages.release(page);
        assert_eq!((pages.n_free(), pages.n_idle(), pages.n_used()), (1, 1, 0));
        pages.share(page);
        assert_eq!((pages.n_idle(), pages.n_used()), (0, 1));
        pages.release(page);
        pages.give_up(page);
        assert_eq!((pages.n_free(), pages.n_idle(), pages.n_used()), (2, 0, 0));
    }
}
