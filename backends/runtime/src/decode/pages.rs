//! Pages of the caches: who has which.

/// All pages, each with how many sequences have it.
#[derive(Debug)]
pub(super) struct Pages {
    holders: Vec<u32>,
    free: Vec<u32>,
}

impl Pages {
    /// So many pages, all free. The first ones are taken first.
    pub(super) fn new(n_pages: u32) -> Self {
        Self { holders: vec![0; n_pages as usize], free: (0..n_pages).rev().collect() }
    }

    /// How many nobody has.
    pub(super) fn n_free(&self) -> usize {
        self.free.len()
    }

    /// A page that nobody has.
    pub(super) fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.holders[page as usize] = 1;
        Some(page)
    }

    /// One more sequence has the page.
    pub(super) fn share(&mut self, page: u32) {
        self.holders[page as usize] += 1;
    }

    /// Whether several sequences have the page, so that none may write to it.
    pub(super) fn is_shared(&self, page: u32) -> bool {
        self.holders[page as usize] > 1
    }

    /// One sequence less has the page.
    pub(super) fn release(&mut self, page: u32) {
        let holders = &mut self.holders[page as usize];
        *holders -= 1;
        if *holders == 0 {
            self.free.push(page);
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
}
