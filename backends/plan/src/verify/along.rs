//! What is checked of work along sequences.

use super::kernel::{Check, Kind, Touched};
use crate::kernel::{Along, Conv, Inputs};

impl Check<'_> {
    pub(super) fn along(&mut self, along: &Along) {
        match *along {
            Along::Mean { cols, x, sequences, out } => {
                self.size("columns", cols, cols > 0);
                self.read(x, cols, Kind::Real);
                self.read(sequences, 1, Kind::U32);
                self.write(out, cols, Kind::Real);
            }
            Along::Conv(ref conv) => self.conv(conv),
        }
    }

    fn conv(&mut self, conv: &Conv) {
        let Conv { cols, taps, filters, positions, sequences, inputs, out } = *conv;
        self.size("columns", cols, cols > 0);
        self.size("taps", taps, taps > 0);
        self.constant(filters, taps, cols, Kind::F32);
        [positions, sequences].into_iter().for_each(|view| self.read(view, 1, Kind::U32));
        match inputs {
            Inputs::Rows { extent, x, positions, sequences } => {
                self.extent(extent);
                self.read_over(extent, x, cols, Kind::Real);
                let places = [positions, sequences];
                places.into_iter().for_each(|view| self.read_over(extent, view, 1, Kind::U32));
            }
            Inputs::Cached { cache, pages, present } => {
                self.exact(cache, cols, Kind::Real);
                self.touch(cache, Touched::Anywhere, false);
                self.pages(pages);
                self.present(present);
            }
        }
        self.write(out, cols, Kind::Real);
    }
}
