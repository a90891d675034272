//! Ends a run when one of its ranks dies or fails, whatever the others wait for.
//!
//! Calls of MPI wait for ranks that are gone for ever. So the first rank has a connection to each of the others, of which the
//! system closes an end when its process is gone; and every few seconds both say that they are there, which a host without
//! power or a stopped process does not. One rank of a run says why it ended: the one that failed first, or the first rank of
//! one that died.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Ranks;
use super::place::wrong;
use super::team::{Member, Report};
use crate::diagnostic::Diagnostic;
use crate::error::Error;

/// From one sign of life to the next.
const BEAT: Duration = Duration::from_secs(2);

/// How long one is waited for. Two in a row have to stay away: after a whole run was stopped, as batch systems do, each rank
/// has waited for so long.
const SILENCE: Duration = Duration::from_secs(10);

/// How long ranks look for each other.
const MEETING: Duration = Duration::from_secs(30);

/// How long a rank that fails waits for the first to fail of the same reason, and how long others let it speak.
const PATIENCE: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(5)];

/// What a process returns that leaves it to another rank to say why it ended.
const QUIET_EXIT: i32 = 1;

/// Bytes of the word by which ranks of a run know each other.
const SECRET: usize = 16;

/// What ranks tell each other, a byte each.
mod word {
    /// I am there.
    pub(super) const BEAT: u8 = b'.';
    /// I have finished, and so have all.
    pub(super) const END: u8 = b'e';
    /// To the first rank: I have failed, and would say why.
    pub(super) const FAILED: u8 = b'f';
    /// From the first rank: say it.
    pub(super) const SPEAK: u8 = b's';
    /// From the first rank: another says why; end.
    pub(super) const QUIET: u8 = b'q';
}

/// The connections of a rank: of the first to all, of others to the first.
pub(super) struct Watch(Arc<Shared>);

struct Shared {
    rank: usize,
    members: Vec<Member>,
    links: BTreeMap<usize, TcpStream>,
    report: Report,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The rank that says why the run ends; another than the first knows of itself alone.
    speaker: Option<usize>,
    /// This rank, another than the first, wants to.
    asked: bool,
    /// Ranks that have finished.
    ended: usize,
}

impl Watch {
    /// Connects all ranks with the first. `report` says why the run ends where the rank whose fault it is cannot.
    ///
    /// # Errors
    /// `train::ranks` for ranks that cannot reach each other.
    pub(super) fn begin(ranks: &dyn Ranks, members: Vec<Member>, report: Report) -> Result<Watch, Error> {
        let rank = ranks.rank();
        let links = match rank {
            0 => accept(ranks, &members)?,
            _ => BTreeMap::from([(0, connect(ranks, &members)?)]),
        };
        for link in links.values() {
            let set = link.set_nodelay(true).and_then(|()| link.set_read_timeout(Some(SILENCE)));
            set.map_err(|error| unreachable_rank(&members[0].name(0), &error))?;
        }
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { rank, members, links, report, state, changed });
        for peer in shared.links.keys().copied() {
            let shared = Arc::clone(&shared);
            spawn(move || shared.listen(peer))?;
        }
        let beating = Arc::downgrade(&shared);
        spawn(move || {
            while let Some(shared) = beating.upgrade() {
                shared.tell_all(word::BEAT);
                drop(shared);
                std::thread::sleep(BEAT);
            }
        })?;
        Ok(Watch(shared))
    }

    /// Returns when this rank may say why it failed; the process ends here if another does.
    pub(super) fn ask_to_speak(&self) {
        let shared = &self.0;
        let mut state = shared.lock();
        if shared.rank == 0 {
            match state.speaker {
                None => {
                    state.speaker = Some(0);
                    drop(state);
                    shared.tell_all(word::QUIET);
                }
                // A listening thread ends the process.
                Some(_) => drop(shared.changed.wait_while(state, |_| true)),
            }
            return;
        }
        state.asked = true;
        drop(state);
        shared.tell(0, word::FAILED);
        let silent = |state: &mut State| state.speaker.is_none();
        drop(shared.changed.wait_timeout_while(shared.lock(), PATIENCE[1], silent));
    }

    /// Lets connections go that all ranks have finished with.
    pub(super) fn end(self) {
        let shared = self.0;
        shared.tell_all(word::END);
        let count = shared.links.len();
        let unfinished = |state: &mut State| state.ended < count;
        drop(shared.changed.wait_timeout_while(shared.lock(), PATIENCE[1], unfinished));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, peer: usize, word: u8) {
        // One that is gone is noticed by who listens to it.
        let _ = self.links.get(&peer).map(|mut link| link.write_all(&[word]));
    }

    fn tell_all(&self, word: u8) {
        self.links.keys().for_each(|peer| self.tell(*peer, word));
    }

    /// Hears what a rank says until it has finished; ends the process if it does not get so far.
    fn listen(&self, peer: usize) {
        let Some(mut link) = self.links.get(&peer) else { return };
        let mut silences = 0;
        loop {
            let mut heard = [0];
            match link.read(&mut heard) {
                Ok(0) => return self.lost(peer, "ended before the run did"),
                Ok(_) => silences = 0,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    silences += 1;
                    if silences == 2 {
                        return self.lost(peer, "has given no sign of life for 20 seconds");
                    }
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return self.lost(peer, "ended before the run did"),
            }
            match heard[0] {
                word::END => {
                    self.lock().ended += 1;
                    self.changed.notify_all();
                    return;
                }
                word::FAILED => self.failed(peer),
                word::SPEAK => self.speak(),
                word::QUIET => {
                    // The first rank ends when the one that speaks has.
                    let _ = link.set_read_timeout(Some(PATIENCE[1] * 2));
                    while link.read(&mut heard).is_ok_and(|count| count > 0 && heard[0] != word::END) {}
                    std::process::exit(QUIET_EXIT);
                }
                _ => {}
            }
        }
    }

    /// This rank may say why it failed.
    fn speak(&self) {
        self.lock().speaker = Some(self.rank);
        self.changed.notify_all();
    }

    /// To the first rank: another has failed.
    fn failed(&self, peer: usize) {
        std::thread::sleep(PATIENCE[0]);
        let mut state = self.lock();
        let speaks = state.speaker.is_none();
        if speaks {
            state.speaker = Some(peer);
        }
        drop(state);
        self.tell(peer, if speaks { word::SPEAK } else { word::QUIET });
    }

    /// A rank is gone that had not finished.
    fn lost(&self, peer: usize, how: &str) {
        let mut state = self.lock();
        match state.speaker {
            // It has said why.
            Some(speaker) if self.rank == 0 && speaker == peer => self.end_all(),
            // Another is about to.
            Some(_) => return,
            None if state.asked => {
                drop(state);
                return self.speak();
            }
            None => {}
        }
        state.speaker = Some(self.rank);
        drop(state);
        if self.rank <= 1 {
            let message = format!("{} {how}", self.members[peer].name(peer));
            let help =
                "what it said itself, if it could, stands above; `--resume` goes on from the last checkpoint";
            (self.report)(&Diagnostic::new("train::rank_died", message).help(help).into());
        } else {
            // The next rank speaks for the first.
            std::thread::sleep(PATIENCE[0]);
        }
        self.end_all();
    }

    /// Ends this process, and those of all that listen to it.
    fn end_all(&self) -> ! {
        self.tell_all(word::QUIET);
        std::process::exit(QUIET_EXIT);
    }
}

fn spawn(task: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let thread = std::thread::Builder::new().name("ranks".to_owned()).stack_size(256 << 10).spawn(task);
    thread.map(drop).map_err(|error| Diagnostic::new("run::threads", error.to_string()).into())
}

fn unreachable_rank(first: &str, error: &std::io::Error) -> Error {
    let message = format!("no connection with {first}: {error}");
    let help =
        "ranks watch each other over TCP, on a port that the system chooses: hosts have to let each other in";
    wrong(message, help.to_owned())
}

/// Waits for all other ranks.
fn accept(ranks: &dyn Ranks, members: &[Member]) -> Result<BTreeMap<usize, TcpStream>, Error> {
    let failed = |error: std::io::Error| unreachable_rank("the other ranks", &error);
    let is_one_host = members.iter().all(|member| member.host == members[0].host);
    let address = if is_one_host { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let listener = TcpListener::bind((address, 0)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let mut secret = [0; SECRET];
    getrandom::fill(&mut secret).map_err(|error| failed(std::io::Error::other(error.to_string())))?;
    let port = listener.local_addr().map_err(failed)?.port();
    let names = match is_one_host {
        true => Ipv4Addr::LOCALHOST.to_string(),
        false => {
            [Some(members[0].host.clone()), outward()].into_iter().flatten().collect::<Vec<_>>().join(" ")
        }
    };
    ranks.gather(&[&secret[..], &port.to_le_bytes(), names.as_bytes()].concat());
    let mut links = BTreeMap::new();
    let began = Instant::now();
    while links.len() + 1 < members.len() {
        match listener.accept() {
            Ok((link, _)) => {
                let greeted = greeting(link, &secret).filter(|(peer, _)| (1..members.len()).contains(peer));
                links.extend(greeted);
            }
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(failed(error)),
            Err(_) if began.elapsed() > MEETING => {
                let missing = (1..members.len()).find(|rank| !links.contains_key(rank)).unwrap_or(0);
                return Err(unreachable_rank(&members[missing].name(missing), &ErrorKind::TimedOut.into()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    Ok(links)
}

/// The rank at the other end, if it belongs to this run.
fn greeting(link: TcpStream, secret: &[u8]) -> Option<(usize, TcpStream)> {
    let mut said = [0; SECRET + 4];
    link.set_nonblocking(false).ok()?;
    link.set_read_timeout(Some(PATIENCE[1])).ok()?;
    (&link).read_exact(&mut said).ok()?;
    let (word, rank) = said.split_at(SECRET);
    let rank = u32::from_le_bytes(rank.try_into().ok()?) as usize;
    (word == secret).then_some((rank, link))
}

/// Connects with the first rank.
fn connect(ranks: &dyn Ranks, members: &[Member]) -> Result<TcpStream, Error> {
    let first = members[0].name(0);
    let said = ranks.gather(&[]).swap_remove(0);
    let mut failed = unreachable_rank(&first, &ErrorKind::AddrNotAvailable.into());
    let Some((secret, rest)) = said.split_at_checked(SECRET) else { return Err(failed) };
    let Some((port, names)) = rest.split_first_chunk() else { return Err(failed) };
    let port = u16::from_le_bytes(*port);
    let greeting = [secret, &(ranks.rank() as u32).to_le_bytes()].concat();
    for name in String::from_utf8_lossy(names).split(' ') {
        let addresses = (name, port).to_socket_addrs();
        for address in addresses.into_iter().flatten() {
            let link = TcpStream::connect_timeout(&address, PATIENCE[1]);
            match link.and_then(|mut link| link.write_all(&greeting).map(|()| link)) {
                Ok(link) => return Ok(link),
                Err(error) => failed = unreachable_rank(&first, &error),
            }
        }
    }
    Err(failed)
}

/// The address by which this host reaches others, where their names are not known to each other. Nothing is sent.
fn outward() -> Option<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address of documentation, which nobody has.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address: IpAddr = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then(|| address.to_string())
}
