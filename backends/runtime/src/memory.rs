//! How much memory this process took.

/// The peak resident memory of this process in KiB, where the system says: Linux does, in `/proc`.
pub fn peak_kib() -> Option<u64> {
    kib_of("/proc/self/status", "VmHWM:")
}

/// Memory in bytes that this machine can give to processes without swapping, where the system says: Linux does, in
/// `/proc`. A limit of a container is regarded where its control group is mounted.
#[must_use]
pub fn available_bytes() -> Option<u64> {
    let of_machine = kib_of("/proc/meminfo", "MemAvailable:")? << 10;
    let number = |name: &str| -> Option<u64> {
        std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse().ok()
    };
    let of_group = number("memory.max").zip(number("memory.current"));
    let left = of_group.map_or(u64::MAX, |(most, now)| most.saturating_sub(now));
    Some(of_machine.min(left))
}

/// A number of KiB in a file of lines such as `MemAvailable:  1024 kB`.
fn kib_of(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
