//! What a command says when the system has no memory left for it.
//!
//! This is one of the files that may contain `unsafe`. What is asked for as a whole, such as the arena of a step, is refused
//! with an error of its own where it is asked for. For everything else Rust would abort the process; a command says instead
//! what happened, and ends as for any other error.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt;
use std::io::{Cursor, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

/// The code of the error.
const CODE: &str = "memory::exhausted";

/// Whether the message is JSON on standard output.
static IN_JSON: AtomicBool = AtomicBool::new(false);

/// The system's allocator, for commands: the process ends with exit code 1 where that has no memory.
#[derive(Clone, Copy, Debug)]
pub struct CommandAllocator;

/// From now on the message is JSON on standard output, as other errors are with `--json`.
pub fn answer_in_json() {
    IN_JSON.store(true, Ordering::Relaxed);
}

// SAFETY: all work is the system allocator's; what it gives is passed on as it is.
unsafe impl GlobalAlloc for CommandAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about the layout is the same.
        given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above, and `memory` is the system allocator's.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { System.realloc(memory, layout, size) }, size)
    }
}

fn given(memory: *mut u8, size: usize) -> *mut u8 {
    if memory.is_null() {
        exhausted(Memory { size: Some(size) });
    }
    memory
}

/// Says that the system has no memory, without asking for any, and ends the process: for libraries that would abort it.
#[cold]
pub fn no_memory() -> ! {
    exhausted(Memory { size: None })
}

/// What was asked for, as far as it is known.
struct Memory {
    size: Option<usize>,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(size) = self.size {
            write!(f, "{size} bytes of ")?;
        }
        f.write_str("memory")
    }
}

#[cold]
fn exhausted(memory: Memory) -> ! {
    let mut message = [0; 512];
    let mut text = Cursor::new(&mut message[..]);
    let in_json = IN_JSON.load(Ordering::Relaxed);
    // The message is shorter than the buffer.
    let _ = match in_json {
        true => writeln!(
            text,
            "{{\"errors\":[{{\"code\":\"{CODE}\",\"severity\":\"error\",\"message\":\"the system has no {memory} left\",\"help\":null,\"file\":null,\"labels\":[]}}],\"warnings\":[],\"left_off\":0}}"
        ),
        false => writeln!(
            text,
            "{CODE}\n\n  × the system has no {memory} left\n  help: a smaller model or batch needs less; see also `ulimit -v`"
        ),
    };
    let length = text.position() as usize;
    end(in_json, message.get(..length).unwrap_or_default())
}

/// Writes the message and ends the process without anything of the standard library's in between: its streams have locks, which
/// another thread may hold that waits for this one, and buffers, which would ask for memory again; and so has an orderly end.
#[cfg(unix)]
fn end(in_json: bool, message: &[u8]) -> ! {
    use std::mem::ManuallyDrop;
    use std::os::fd::FromRawFd as _;
    // SAFETY: this is the function of the C library, which takes any number and does not return.
    unsafe extern "C" {
        safe fn _exit(code: i32) -> !;
    }
    /// Whether a thread is at it.
    static IS_ENDING: AtomicBool = AtomicBool::new(false);
    while IS_ENDING.swap(true, Ordering::Relaxed) {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    // SAFETY: standard output and error stay open as long as the process; the file is not dropped, and so closes neither.
    let mut stream = ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(if in_json { 1 } else { 2 }) });
    let _ = stream.write_all(message);
    _exit(1)
}

#[cfg(not(unix))]
fn end(in_json: bool, message: &[u8]) -> ! {
    let _ = match in_json {
        true => std::io::stdout().write_all(message).and_then(|()| std::io::stdout().flush()),
        false => std::io::stderr().write_all(message),
    };
    std::process::exit(1)
}
