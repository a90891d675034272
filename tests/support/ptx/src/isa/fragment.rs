//! Which element of a matrix each register of each lane holds.
//!
//! A function takes the lane (or the thread of a warp group) and the element's number in the lane's vector,
//! low to high: with 16-bit elements, register `idx / 2`, its lower half first. It returns (row, column).

/// Element (row, column) of a matrix.
pub type Element = (usize, usize);

/// Threads of a warp group: four warps in a row, the first one's number a multiple of four (PTX ISA
/// 9.7.15.1).
pub const WARP_GROUP: usize = 128;

/// Group of four lanes, and the lane in it.
const fn quad(lane: usize) -> (usize, usize) {
    (lane >> 2, lane & 3)
}

/// A of `mma.m16n8k16` with bf16 or f16: `a[idx]`, `idx < 8`, of a 16×16 matrix (PTX ISA 9.7.14.5.8, Figure
/// 79).
pub const fn m16n8k16_a(lane: usize, idx: usize) -> Element {
    let (group, member) = quad(lane);
    (group + 8 * (idx >> 1 & 1), 2 * member + (idx & 1) + 8 * (idx >> 2))
}

/// B of `mma.m16n8k16` with bf16 or f16: `b[idx]`, `idx < 4`, of a 16×8 matrix (PTX ISA 9.7.14.5.8, Figure
/// 81).
pub const fn m16n8k16_b(lane: usize, idx: usize) -> Element {
    let (group, member) = quad(lane);
    (2 * member + (idx & 1) + 8 * (idx >> 1), group)
}

/// C or D of `mma.m16n8k16` and `mma.m16n8k8` with f32: `d[idx]`, `idx < 4`, of a 16×8 matrix
/// (PTX ISA 9.7.14.5.7, Figure 77; 9.7.14.5.8, Figure 83).
pub const fn m16n8_d(lane: usize, idx: usize) -> Element {
    let (group, member) = quad(lane);
    (group + 8 * (idx >> 1), 2 * member + (idx & 1))
}

/// A of `mma.m16n8k8` with bf16 or f16: `a[idx]`, `idx < 4`, of a 16×8 matrix (PTX ISA 9.7.14.5.7, Figure
/// 71).
pub const fn m16n8k8_a(lane: usize, idx: usize) -> Element {
    m16n8_d(lane, idx)
}

/// B of `mma.m16n8k8` with bf16 or f16: `b[idx]`, `idx < 2`, of an 8×8 matrix (PTX ISA 9.7.14.5.7, Figure
/// 74).
pub const fn m16n8k8_b(lane: usize, idx: usize) -> Element {
    let (group, member) = quad(lane);
    (2 * member + idx, group)
}

/// Matrix and row whose 16 bytes start at the address that `lane` gives to `ldmatrix` or `stmatrix`; the
/// address counts if the matrix is below the instruction's number of matrices (PTX ISA 9.7.14.5.15,
/// 9.7.14.5.16).
pub const fn matrix_address(lane: usize) -> (usize, usize) {
    (lane >> 3, lane & 7)
}

/// What `ldmatrix` puts into, and `stmatrix` takes from, half `half < 2` of a lane's register, of the 8×8
/// matrix that belongs to this register: (row in memory, element of the row) (PTX ISA 9.7.14.5.15, Figure
/// 104; 9.7.14.5.16, Figure 107).
pub const fn matrix_element(lane: usize, half: usize) -> Element {
    let (group, member) = quad(lane);
    (group, 2 * member + half)
}

/// As [`matrix_element`] with `.trans`: rows in memory are columns of the matrix (PTX ISA 9.7.14.5.15,
/// 9.7.14.5.16).
pub const fn matrix_element_trans(lane: usize, half: usize) -> Element {
    let (row, column) = matrix_element(lane, half);
    (column, row)
}

/// D of `wgmma.mma_async.m64nNk16` and `m64nNk8` with f32: `d[idx]`, `idx < N / 2`, of a 64×N matrix, for a
/// thread of the warp group (PTX ISA 9.7.15.5.1.1.1, Figure 149; 9.7.15.5.1.1.2, Figure 151).
pub const fn wgmma_d(thread: usize, idx: usize) -> Element {
    let (row, column) = m16n8_d(thread & 31, idx & 3);
    (16 * (thread >> 5) + row, 8 * (idx >> 2) + column)
}

/// A in registers of `wgmma.mma_async.m64nNk16` with bf16 or f16: `a[idx]`, `idx < 8`, of a 64×16 matrix
/// (PTX ISA 9.7.15.5.1.1.1, Figure 148).
pub const fn wgmma_a(thread: usize, idx: usize) -> Element {
    let (row, column) = m16n8k16_a(thread & 31, idx);
    (16 * (thread >> 5) + row, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fragment = fn(usize, usize) -> Element;

    #[track_caller]
    fn check(fragment: Fragment, facts: &[(usize, usize, Element)]) {
        for &(lane, idx, expected) in facts {
            assert_eq!(fragment(lane, idx), expected, "lane {lane}, element {idx}");
        }
    }

    /// Figure 79: the corners of the four 8×8 quarters, and some inside.
    #[test]
    fn a_of_m16n8k16_is_as_in_the_figure() {
        check(
            m16n8k16_a,
            &[
                (0, 0, (0, 0)),
                (0, 1, (0, 1)),
                (0, 2, (8, 0)),
                (0, 3, (8, 1)),
                (0, 4, (0, 8)),
                (0, 5, (0, 9)),
                (0, 6, (8, 8)),
                (0, 7, (8, 9)),
                (3, 1, (0, 7)),
                (3, 5, (0, 15)),
                (4, 0, (1, 0)),
                (13, 2, (11, 2)),
                (13, 7, (11, 11)),
                (22, 4, (5, 12)),
                (28, 0, (7, 0)),
                (31, 1, (7, 7)),
                (31, 3, (15, 7)),
                (31, 5, (7, 15)),
                (31, 7, (15, 15)),
            ],
        );
    }

    /// Figures 81 and 83.
    #[test]
    fn b_and_d_of_m16n8k16_are_as_in_the_figures() {
        check(
            m16n8k16_b,
            &[
                (0, 0, (0, 0)),
                (0, 1, (1, 0)),
                (0, 2, (8, 0)),
                (0, 3, (9, 0)),
                (1, 0, (2, 0)),
                (3, 3, (15, 0)),
                (4, 0, (0, 1)),
                (9, 2, (10, 2)),
                (28, 1, (1, 7)),
                (31, 0, (6, 7)),
                (31, 3, (15, 7)),
            ],
        );
        check(
            m16n8_d,
            &[
                (0, 0, (0, 0)),
                (0, 1, (0, 1)),
                (0, 2, (8, 0)),
                (0, 3, (8, 1)),
                (2, 0, (0, 4)),
                (5, 3, (9, 3)),
                (18, 1, (4, 5)),
                (28, 0, (7, 0)),
                (31, 0, (7, 6)),
                (31, 3, (15, 7)),
            ],
        );
    }

    /// Figures 71 and 74.
    #[test]
    fn m16n8k8_is_as_in_the_figures() {
        check(
            m16n8k8_a,
            &[(0, 1, (0, 1)), (0, 2, (8, 0)), (6, 0, (1, 4)), (17, 3, (12, 3)), (31, 3, (15, 7))],
        );
        check(m16n8k8_b, &[(0, 0, (0, 0)), (0, 1, (1, 0)), (6, 0, (4, 1)), (17, 1, (3, 4)), (31, 1, (7, 7))]);
    }

    /// The table of addresses in section 9.7.14.5.15, and Figure 104.
    #[test]
    fn ldmatrix_is_as_in_the_table_and_the_figure() {
        let addresses =
            [(0, (0, 0)), (7, (0, 7)), (8, (1, 0)), (15, (1, 7)), (16, (2, 0)), (23, (2, 7)), (24, (3, 0))];
        for (lane, expected) in addresses {
            assert_eq!(matrix_address(lane), expected, "lane {lane}");
        }
        check(
            matrix_element,
            &[
                (0, 0, (0, 0)),
                (0, 1, (0, 1)),
                (3, 1, (0, 7)),
                (4, 0, (1, 0)),
                (30, 1, (7, 5)),
                (31, 1, (7, 7)),
            ],
        );
        check(
            matrix_element_trans,
            &[
                (0, 0, (0, 0)),
                (0, 1, (1, 0)),
                (3, 1, (7, 0)),
                (4, 0, (0, 1)),
                (30, 1, (5, 7)),
                (31, 1, (7, 7)),
            ],
        );
    }

    /// `ldmatrix` brings operands of `mma.m16n8k16` into place: four matrices of A by rows, two of B by
    /// columns.
    #[test]
    fn ldmatrix_and_mma_agree() {
        for lane in 0..32 {
            for idx in 0..8 {
                let (row, column) = matrix_element(lane, idx & 1);
                let (matrix_row, matrix_column) = [(0, 0), (8, 0), (0, 8), (8, 8)][idx / 2];
                assert_eq!(m16n8k16_a(lane, idx), (matrix_row + row, matrix_column + column));
            }
            for idx in 0..4 {
                let (row, column) = matrix_element_trans(lane, idx & 1);
                assert_eq!(m16n8k16_b(lane, idx), ([0, 8][idx / 2] + row, column));
            }
        }
    }

    /// Figures 148 and 149: warp `w` holds rows `16 w` to `16 w + 15`.
    #[test]
    fn wgmma_is_as_in_the_figures() {
        check(
            wgmma_d,
            &[
                (0, 0, (0, 0)),
                (0, 1, (0, 1)),
                (0, 2, (8, 0)),
                (0, 3, (8, 1)),
                (0, 4, (0, 8)),
                (0, 127, (8, 249)),
                (1, 0, (0, 2)),
                (3, 5, (0, 15)),
                (31, 3, (15, 7)),
                (32, 0, (16, 0)),
                (63, 2, (31, 6)),
                (64, 8, (32, 16)),
                (100, 6, (57, 8)),
                (127, 0, (55, 6)),
                (127, 127, (63, 255)),
            ],
        );
        check(
            wgmma_a,
            &[(0, 4, (0, 8)), (33, 2, (24, 2)), (66, 5, (32, 13)), (127, 0, (55, 6)), (127, 7, (63, 15))],
        );
    }

    /// A layout of CuTe: a number's digits times their strides, over the digits' radices.
    fn digits(mut number: usize, radices_and_strides: &[(usize, usize)]) -> usize {
        let mut sum = 0;
        for &(radix, stride) in radices_and_strides {
            sum += number % radix * stride;
            number /= radix;
        }
        sum
    }

    /// (fragment, lanes, elements, rows, digits of the lane, digits of the element).
    type Cute = (Fragment, usize, usize, usize, &'static [(usize, usize)], &'static [(usize, usize)]);

    /// `mma_traits_sm80.hpp` and `mma_traits_sm90_gmma.hpp` of CUTLASS; a layout's value is `row + n_rows ·
    /// column`, for B `column + n_columns · row`.
    #[test]
    fn fragments_are_those_of_cutlass() {
        let layouts: [Cute; 4] = [
            (m16n8k16_a, 32, 8, 16, &[(4, 32), (8, 1)], &[(2, 16), (2, 8), (2, 128)]),
            (|l, i| transposed(m16n8k16_b(l, i)), 32, 4, 8, &[(4, 16), (8, 1)], &[(2, 8), (2, 64)]),
            (m16n8_d, 32, 4, 16, &[(4, 32), (8, 1)], &[(2, 16), (2, 8)]),
            (wgmma_d, 128, 128, 64, &[(4, 128), (8, 1), (4, 16)], &[(2, 64), (2, 8), (32, 512)]),
        ];
        for (fragment, n_lanes, n_elements, n_rows, of_lane, of_element) in layouts {
            for lane in 0..n_lanes {
                for idx in 0..n_elements {
                    let (row, column) = fragment(lane, idx);
                    assert_eq!(row + n_rows * column, digits(lane, of_lane) + digits(idx, of_element));
                }
            }
        }
    }

    fn transposed((row, column): Element) -> Element {
        (column, row)
    }

    #[test]
    fn every_element_is_held_once() {
        let fragments: [(Fragment, usize, usize, usize, usize); 10] = [
            (m16n8k16_a, 32, 8, 16, 16),
            (m16n8k16_b, 32, 4, 16, 8),
            (m16n8_d, 32, 4, 16, 8),
            (m16n8k8_a, 32, 4, 16, 8),
            (m16n8k8_b, 32, 2, 8, 8),
            (matrix_element, 32, 2, 8, 8),
            (matrix_element_trans, 32, 2, 8, 8),
            (wgmma_d, WARP_GROUP, 4, 64, 8),
            (wgmma_d, WARP_GROUP, 128, 64, 256),
            (wgmma_a, WARP_GROUP, 8, 64, 16),
        ];
        for (fragment, n_lanes, n_elements, n_rows, n_columns) in fragments {
            let mut held = vec![0; n_rows * n_columns];
            for lane in 0..n_lanes {
                for idx in 0..n_elements {
                    let (row, column) = fragment(lane, idx);
                    assert!(row < n_rows && column < n_columns);
                    held[row * n_columns + column] += 1;
                }
            }
            assert!(held.iter().all(|times| *times == 1));
        }
    }
}
