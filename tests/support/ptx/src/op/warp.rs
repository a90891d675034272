//! Instructions by which the lanes of a warp talk to each other: `shfl.sync` (PTX ISA section 9.7.9.6) and
//! votes, matches, reductions and elections (section 9.7.13).
//!
//! A `.sync` instruction waits for the lanes that its member mask names and that have not ended. The machine
//! runs the lanes of a warp that are together, so a mask that names a lane which is elsewhere would wait for
//! good, and one that leaves the lane itself out is undefined; both are faults, and so is a lane that waits
//! for others that wait for different ones.

use crate::machine::Run;
use crate::machine::decode::{DecodeError, Decoder, Form, Kind};
use crate::op::lanes::{self, Lane, each, each_bit, run};
use crate::registers::{Lanes32, Mask, RegisterFault, Registers, Source32, WARP, lanes as lanes_of};
use crate::syntax::{Instruction, Operand};

const fn form(section: &'static str, syntax: &'static str, decode: super::Decode) -> Form {
    lanes::form(section, Kind::Warp, syntax, decode)
}

/// The family's forms.
pub(super) const FORMS: &[Form] = &[
    form("9.7.9.6", "shfl.sync.up.b32", |d, i| {
        shuffle(d, i, |at| {
            let source = at.lane.wrapping_sub(at.offset);
            // Signed: a source before lane 0 is before the segment as well.
            (source, source as i32 >= at.last as i32)
        })
    }),
    form("9.7.9.6", "shfl.sync.down.b32", |d, i| {
        shuffle(d, i, |at| (at.lane + at.offset, at.lane + at.offset <= at.last))
    }),
    form("9.7.9.6", "shfl.sync.bfly.b32", |d, i| {
        shuffle(d, i, |at| (at.lane ^ at.offset, at.lane ^ at.offset <= at.last))
    }),
    form("9.7.9.6", "shfl.sync.idx.b32", |d, i| {
        shuffle(d, i, |at| {
            let source = at.first | (at.offset & !at.segment);
            (source, source <= at.last)
        })
    }),
    form("9.7.13.9", "vote.sync.all.pred", |d, i| vote(d, i, |votes, members| votes == members)),
    form("9.7.13.9", "vote.sync.any.pred", |d, i| vote(d, i, |votes, _| votes != 0)),
    form("9.7.13.9", "vote.sync.uni.pred", |d, i| {
        vote(d, i, |votes, members| votes == 0 || votes == members)
    }),
    form("9.7.13.9", "vote.sync.ballot.b32", ballot),
    form("9.7.13.10", "match.any.sync.b32", match_any::<u32>),
    form("9.7.13.10", "match.any.sync.b64", match_any::<u64>),
    form("9.7.13.10", "match.all.sync.b32", match_all::<u32>),
    form("9.7.13.10", "match.all.sync.b64", match_all::<u64>),
    form("9.7.13.11", "activemask.b32", |d, i| {
        d.expect_operands(i, 1)?;
        let to = u32::result(d, &i.operands[0])?;
        Ok(run(move |registers, mask| {
            registers.set32(to, mask, &[mask; WARP]);
            Ok(())
        }))
    }),
    form("9.7.13.12", "redux.sync.add.{u32,s32}", |d, i| reduce(d, i, u32::wrapping_add)),
    form("9.7.13.12", "redux.sync.min.u32", |d, i| reduce(d, i, |a: u32, b: u32| a.min(b))),
    form("9.7.13.12", "redux.sync.max.u32", |d, i| reduce(d, i, |a: u32, b: u32| a.max(b))),
    form("9.7.13.12", "redux.sync.min.s32", |d, i| reduce(d, i, |a: i32, b: i32| a.min(b))),
    form("9.7.13.12", "redux.sync.max.s32", |d, i| reduce(d, i, |a: i32, b: i32| a.max(b))),
    form("9.7.13.12", "redux.sync.and.b32", |d, i| reduce(d, i, |a: u32, b: u32| a & b)),
    form("9.7.13.12", "redux.sync.or.b32", |d, i| reduce(d, i, |a: u32, b: u32| a | b)),
    form("9.7.13.12", "redux.sync.xor.b32", |d, i| reduce(d, i, |a: u32, b: u32| a ^ b)),
    form("9.7.13.14", "elect.sync", elect),
];

/// The members of each lane that have not ended, if the lanes that execute are there for each other.
fn members(registers: &Registers, source: Source32, executing: Mask) -> Result<Lanes32, RegisterFault> {
    let masks = registers.get32(source, executing)?.map(|wanted| wanted & registers.alive);
    // As it nearly always is: every lane waits for those that are there.
    if each_bit(|lane| masks[lane] == executing) & executing == executing {
        return Ok(masks);
    }
    for lane in lanes_of(executing) {
        let wanted = masks[lane];
        let is_member = wanted & (1 << lane) != 0;
        let is_complete = wanted & !executing == 0;
        if !is_member || !is_complete || lanes_of(wanted).any(|other| masks[other] != wanted) {
            return Err(RegisterFault::Membermask { lane, wanted, executing });
        }
    }
    Ok(masks)
}

/// What decides the source of a shuffle, for one lane, as section 9.7.9.6 computes it.
struct Position {
    lane: u32,
    /// Operand b, five bits.
    offset: u32,
    /// Bits of the lane's number that name its segment.
    segment: u32,
    /// First lane of the segment.
    first: u32,
    /// The lane at which to clamp.
    last: u32,
}

/// `shfl.sync.mode d|p, a, b, c, membermask`; `source` tells the lane to read from and whether it is in
/// range.
fn shuffle(
    d: &mut Decoder<'_>,
    i: &Instruction,
    source: impl Fn(&Position) -> (u32, bool) + Send + Sync + 'static,
) -> Result<Run, DecodeError> {
    d.expect_operands(i, 5)?;
    let (to, in_range) = word_and_predicate(d, &i.operands[0])?;
    let (a, b) = (u32::source(d, &i.operands[1])?, u32::source(d, &i.operands[2])?);
    let (c, membermask) = (u32::source(d, &i.operands[3])?, u32::source(d, &i.operands[4])?);
    Ok(run(move |registers, mask| {
        let masks = members(registers, membermask, mask)?;
        let a = registers.get32(a, mask)?;
        let (b, c) = (registers.get32(b, mask)?, registers.get32(c, mask)?);
        let (mut values, mut valid) = ([0; WARP], 0);
        for lane in lanes_of(mask) {
            let at = position(lane as u32, b[lane], c[lane]);
            let (from, is_valid) = source(&at);
            let from = if is_valid { from as usize } else { lane };
            if masks[lane] & (1 << from) == 0 {
                return Err(RegisterFault::SourceLane { lane, source: from });
            }
            values[lane] = a[from];
            valid |= u32::from(is_valid) << lane;
        }
        set_both(registers, mask, (to, &values), (in_range, valid));
        Ok(())
    }))
}

fn position(lane: u32, b: u32, c: u32) -> Position {
    let (clamp, segment) = (c & 0x1f, c >> 8 & 0x1f);
    let first = lane & segment;
    Position { lane, offset: b & 0x1f, segment, first, last: first | (clamp & !segment) }
}

/// `vote.sync.mode.pred d, a, membermask`: `decide` sees the votes and the voters.
fn vote(
    d: &mut Decoder<'_>,
    i: &Instruction,
    decide: impl Fn(Mask, Mask) -> bool + Send + Sync + 'static,
) -> Result<Run, DecodeError> {
    d.expect_operands(i, 3)?;
    let to = d.to_predicate(&i.operands[0])?;
    let (a, membermask) = (d.source_predicate(&i.operands[1])?, u32::source(d, &i.operands[2])?);
    Ok(run(move |registers, mask| {
        let masks = members(registers, membermask, mask)?;
        let votes = registers.get_predicate(a, mask)?;
        registers.set_predicate(to, mask, each_bit(|lane| decide(votes & masks[lane], masks[lane])));
        Ok(())
    }))
}

/// `vote.sync.ballot.b32 d, a, membermask`
fn ballot(d: &mut Decoder<'_>, i: &Instruction) -> Result<Run, DecodeError> {
    d.expect_operands(i, 3)?;
    let to = u32::result(d, &i.operands[0])?;
    let (a, membermask) = (d.source_predicate(&i.operands[1])?, u32::source(d, &i.operands[2])?);
    Ok(run(move |registers, mask| {
        let masks = members(registers, membermask, mask)?;
        let votes = registers.get_predicate(a, mask)?;
        registers.set32(to, mask, &each(|lane| votes & masks[lane]));
        Ok(())
    }))
}

/// `match.any.sync.type d, a, membermask`: the lanes with this lane's value.
fn match_any<T: Lane + PartialEq>(d: &mut Decoder<'_>, i: &Instruction) -> Result<Run, DecodeError> {
    d.expect_operands(i, 3)?;
    let to = u32::result(d, &i.operands[0])?;
    let (a, membermask) = (T::source(d, &i.operands[1])?, u32::source(d, &i.operands[2])?);
    Ok(run(move |registers, mask| {
        let masks = members(registers, membermask, mask)?;
        let a = T::get(registers, a, mask)?;
        let equals = |lane: usize| each_bit(|other| a[other] == a[lane]);
        registers.set32(to, mask, &each(|lane| equals(lane) & masks[lane]));
        Ok(())
    }))
}

/// `match.all.sync.type d|p, a, membermask`: all members, or nothing if their values differ.
fn match_all<T: Lane + PartialEq>(d: &mut Decoder<'_>, i: &Instruction) -> Result<Run, DecodeError> {
    d.expect_operands(i, 3)?;
    let (to, is_same) = word_and_predicate(d, &i.operands[0])?;
    let (a, membermask) = (T::source(d, &i.operands[1])?, u32::source(d, &i.operands[2])?);
    Ok(run(move |registers, mask| {
        let masks = members(registers, membermask, mask)?;
        let a = T::get(registers, a, mask)?;
        let same = each_bit(|lane| lanes_of(masks[lane] & mask).all(|other| a[other] == a[lane]));
        let values = each(|lane| if same & (1 << lane) != 0 { masks[lane] } else { 0 });
        set_both(registers, mask, (to, &values), (is_same, same));
        Ok(())
    }))
}

/// `redux.sync.op.type d, a, membermask`
fn reduce<T: Lane>(
    d: &mut Decoder<'_>,
    i: &Instruction,
    f: impl Fn(T, T) -> T + Send + Sync + 'static,
) -> Result<Run, DecodeError> {
    d.expect_operands(i, 3)?;
    let to = T::result(d, &i.operands[0])?;
    let (a, membermask) = (T::source(d, &i.operands[1])?, u32::source(d, &i.operands[2])?);
    Ok(run(move |registers, mask| {
        let masks = members(registers, membermask, mask)?;
        let a = T::get(registers, a, mask)?;
        let total = |lane: usize| lanes_of(masks[lane] & mask).map(|other| a[other]).reduce(&f);
        T::set(registers, to, mask, &each(|lane| total(lane).unwrap_or(T::ZERO)));
        Ok(())
    }))
}

/// `elect.sync d|p, membermask`: the lowest lane, which is the same every time, as the ISA asks.
fn elect(d: &mut Decoder<'_>, i: &Instruction) -> Result<Run, DecodeError> {
    d.expect_operands(i, 2)?;
    let (to, is_leader) = word_and_predicate(d, &i.operands[0])?;
    let membermask = u32::source(d, &i.operands[1])?;
    Ok(run(move |registers, mask| {
        let masks = members(registers, membermask, mask)?;
        let values = each(|lane| masks[lane].trailing_zeros());
        let leaders = each_bit(|lane| values[lane] == lane as u32);
        set_both(registers, mask, (to, &values), (is_leader, leaders));
        Ok(())
    }))
}

/// `d|p`, either of which may be `_`, or `d` alone.
fn word_and_predicate(d: &Decoder<'_>, operand: &Operand) -> Result<(Option<u32>, Option<u32>), DecodeError> {
    let (word, predicate) = match operand {
        Operand::Pair(word, predicate) => (&**word, &**predicate),
        single => (single, &Operand::Sink),
    };
    let word = if *word == Operand::Sink { None } else { Some(u32::result(d, word)?) };
    let predicate = if *predicate == Operand::Sink { None } else { Some(d.to_predicate(predicate)?) };
    Ok((word, predicate))
}

fn set_both(
    registers: &mut Registers,
    mask: Mask,
    (word, values): (Option<u32>, &Lanes32),
    (predicate, bits): (Option<u32>, Mask),
) {
    if let Some(slot) = word {
        registers.set32(slot, mask, values);
    }
    if let Some(slot) = predicate {
        registers.set_predicate(slot, mask, bits);
    }
}

#[cfg(test)]
mod tests {
    use crate::op::trial::{Trial, Value, Value::*, refused};
    use crate::registers::{Mask, RegisterFault, Slot, Unset};
    use crate::syntax::{Operand, RegisterClass};

    const ALL: Value<'_> = Integer(u64::MAX);

    /// Each lane's number.
    const LANE: [u32; 32] = {
        let mut values = [0; 32];
        let mut lane = 0;
        while lane < 32 {
            values[lane as usize] = lane;
            lane += 1;
        }
        values
    };

    /// A shuffle of the lanes' numbers: where each value comes from, and whether it is in range.
    fn shuffled(mode: &str, b: u64, c: u64) -> (Vec<u64>, Mask) {
        let trial = Trial::new().results(&[RegisterClass::B32, RegisterClass::Predicate]).sources(&[
            Lanes(&LANE),
            Integer(b),
            Integer(c),
            ALL,
        ]);
        let values = trial.run(&format!("shfl.sync.{mode}.b32"), Mask::MAX).expect("no fault");
        (values[0].to_vec(), super::each_bit(|lane| values[1][lane] != 0))
    }

    fn words(opcode: &str, sources: &[Value<'_>], mask: Mask) -> Result<Vec<u64>, RegisterFault> {
        let trial = Trial::new().results(&[RegisterClass::B32]).sources(sources);
        trial.run(opcode, mask).map(|values| values[0].to_vec())
    }

    fn from(f: impl Fn(u64) -> u64) -> Vec<u64> {
        (0..32).map(f).collect()
    }

    #[test]
    fn shuffles_over_the_whole_warp() {
        assert_eq!(shuffled("bfly", 16, 31), (from(|lane| lane ^ 16), Mask::MAX));
        assert_eq!(shuffled("idx", 5, 31), (from(|_| 5), Mask::MAX));
        assert_eq!(shuffled("idx", 37, 31), (from(|_| 5), Mask::MAX));
        let up = from(|lane| if lane < 3 { lane } else { lane - 3 });
        assert_eq!(shuffled("up", 3, 0), (up, !7));
        let down = from(|lane| if lane + 3 > 31 { lane } else { lane + 3 });
        assert_eq!(shuffled("down", 3, 31), (down, 0x1fff_ffff));
    }

    #[test]
    fn shuffles_clamp() {
        // Lanes above the clamp keep what they have.
        let up_to_7 = from(|lane| if lane < 7 { lane + 1 } else { lane });
        assert_eq!(shuffled("down", 1, 7), (up_to_7, 0x7f));
        assert_eq!(
            shuffled("bfly", 8, 15),
            (from(|lane| if lane ^ 8 <= 15 { lane ^ 8 } else { lane }), 0xffff)
        );
        assert_eq!(shuffled("idx", 9, 8), (from(|lane| lane), 0));
    }

    #[test]
    fn shuffles_stay_in_their_segments() {
        // Segments of eight lanes: the segment mask is the bits above, 0b11000.
        let c = 0x18 << 8;
        let first = |lane: u64| lane & !7;
        assert_eq!(shuffled("idx", 3, c | 7), (from(|lane| first(lane) + 3), Mask::MAX));
        assert_eq!(shuffled("idx", 11, c | 7), (from(|lane| first(lane) + 3), Mask::MAX));
        let down = from(|lane| if lane % 8 + 2 <= 7 { lane + 2 } else { lane });
        assert_eq!(shuffled("down", 2, c | 7), (down, 0x3f3f_3f3f));
        let up = from(|lane| if lane % 8 >= 2 { lane - 2 } else { lane });
        assert_eq!(shuffled("up", 2, c), (up, 0xfcfc_fcfc));
        assert_eq!(shuffled("bfly", 4, c | 7), (from(|lane| lane ^ 4), Mask::MAX));
        // A partner in a later segment is beyond the last lane, one in an earlier segment is not.
        let bfly = from(|lane| if lane & 8 == 0 { lane } else { lane ^ 8 });
        assert_eq!(shuffled("bfly", 8, c | 7), (bfly, 0xff00_ff00));
    }

    #[test]
    fn a_member_that_is_not_there_is_a_fault() {
        let fault = words("shfl.sync.bfly.b32", &[Lanes(&LANE), Integer(1), Integer(31), ALL], 0xffff);
        let wanted = RegisterFault::Membermask { lane: 0, wanted: Mask::MAX, executing: 0xffff };
        assert_eq!(fault, Err(wanted));
        let fault = words("vote.sync.ballot.b32", &[Votes(5), Integer(0xff)], 0x1ff);
        assert_eq!(fault, Err(RegisterFault::Membermask { lane: 8, wanted: 0xff, executing: 0x1ff }));
    }

    #[test]
    fn members_agree_on_their_mask() {
        let halves: [u32; 32] = std::array::from_fn(|lane| if lane < 16 { 0xffff } else { 0xffff_0000 });
        let ballot = words("vote.sync.ballot.b32", &[Votes(0x0001_0003), Lanes(&halves)], Mask::MAX);
        assert_eq!(ballot, Ok(from(|lane| if lane < 16 { 3 } else { 0x1_0000 })));
        let mut odd = [Mask::MAX; 32];
        odd[7] = 0xff;
        let fault = words("vote.sync.ballot.b32", &[Votes(0), Lanes(&odd)], Mask::MAX);
        assert_eq!(
            fault,
            Err(RegisterFault::Membermask { lane: 0, wanted: Mask::MAX, executing: Mask::MAX })
        );
    }

    #[test]
    fn a_source_that_takes_no_part_is_a_fault() {
        let sources = [Lanes(&LANE), Integer(4), Integer(31), Integer(0xf)];
        assert_eq!(
            words("shfl.sync.bfly.b32", &sources, 0xf),
            Err(RegisterFault::SourceLane { lane: 0, source: 4 })
        );
        let sources = [Lanes(&LANE), Integer(2), Integer(31), Integer(0xf)];
        let values = words("shfl.sync.bfly.b32", &sources, 0xf).expect("all four are there");
        assert_eq!(values[..4], [2, 3, 0, 1]);
    }

    #[test]
    fn votes_count_members_only() {
        let vote = |name: &str, votes: Mask, members: u64, mask: Mask| {
            let trial =
                Trial::new().results(&[RegisterClass::Predicate]).sources(&[Votes(votes), Integer(members)]);
            let values = trial.run(&format!("vote.sync.{name}.pred"), mask).expect("no fault");
            super::each_bit(|lane| values[0][lane] != 0)
        };
        assert_eq!(vote("all", 0xff, 0xff, 0xff), 0xff);
        assert_eq!(vote("all", 0x7f, 0xff, 0xff), 0);
        assert_eq!(vote("any", 0x10, 0xff, 0xff), 0xff);
        assert_eq!(vote("any", 0, u64::MAX, Mask::MAX), 0);
        assert_eq!(vote("uni", 0, u64::MAX, Mask::MAX), Mask::MAX);
        assert_eq!(vote("uni", 1, u64::MAX, Mask::MAX), 0);
        assert_eq!(words("vote.sync.ballot.b32", &[Votes(0xf0f), ALL], Mask::MAX), Ok(from(|_| 0xf0f)));
    }

    #[test]
    fn equal_values_find_each_other() {
        let values: [u32; 32] = std::array::from_fn(|lane| lane as u32 % 2);
        let any = words("match.any.sync.b32", &[Lanes(&values), ALL], Mask::MAX);
        assert_eq!(any, Ok(from(|lane| if lane % 2 == 0 { 0x5555_5555 } else { 0xaaaa_aaaa })));
        assert_eq!(words("match.all.sync.b32", &[Lanes(&values), ALL], Mask::MAX), Ok(from(|_| 0)));
        assert_eq!(words("match.all.sync.b64", &[B64(7), ALL], Mask::MAX), Ok(from(|_| 0xffff_ffff)));
    }

    #[test]
    fn reductions_know_their_sign() {
        let values: [u32; 32] = std::array::from_fn(|lane| if lane == 9 { u32::MAX } else { lane as u32 });
        let all = |name: &str| {
            words(&format!("redux.sync.{name}"), &[Lanes(&values), ALL], Mask::MAX).expect("no fault")[3]
        };
        assert_eq!(all("add.s32"), (496 - 9 - 1) as u64);
        assert_eq!(all("min.s32"), u64::from(u32::MAX));
        assert_eq!(all("max.s32"), 31);
        assert_eq!(all("max.u32"), u64::from(u32::MAX));
        assert_eq!(all("min.u32"), 0);
        assert_eq!(all("and.b32"), 0);
        assert_eq!(all("or.b32"), u64::from(u32::MAX));
    }

    #[test]
    fn one_lane_is_elected() {
        let trial =
            Trial::new().results(&[RegisterClass::B32, RegisterClass::Predicate]).sources(&[Integer(0xf0)]);
        let values = trial.run("elect.sync", 0xf0).expect("no fault");
        assert_eq!(values[0][4..8], [4; 4]);
        assert_eq!(values[1][4..8], [1, 0, 0, 0]);
        assert_eq!(words("activemask.b32", &[], 0xf0).expect("no fault")[5], 0xf0);
    }

    #[test]
    fn a_value_that_only_some_lanes_have_is_unset() {
        let trial = Trial::new().results(&[RegisterClass::B32]).results(&[RegisterClass::B32]);
        let trial = trial.sources(&[Integer(0), Integer(31), ALL]);
        let unset = Unset { slot: Slot::Word(1), lanes: Mask::MAX };
        assert_eq!(trial.run("shfl.sync.idx.b32", Mask::MAX), Err(RegisterFault::Unset(unset)));
    }

    #[test]
    fn a_label_is_no_member_mask() {
        let trial = Trial::new().results(&[RegisterClass::B32]).sources(&[Votes(0)]).with(Operand::Label(0));
        assert!(trial.decode(crate::op::table(), "vote.sync.ballot.b32").is_err());
        assert!(refused("shfl.sync.up.b32", &[B64(1), B32(1), B32(1), ALL]).contains("`shfl.sync.up.b32`"));
    }
}
