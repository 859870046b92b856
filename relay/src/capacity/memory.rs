//! Memory, where the control group of this process sets a limit; elsewhere nothing is judged. What counts is what the
//! kernel would end the process for: all that is charged to the group, but for the file cache, which it takes back.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use super::Shortage;
use crate::lanes::LANES;
use crate::link::locked;

/// A limit that is none: version 1 of control groups writes the largest number of pages.
const NO_LIMIT: u64 = 1 << 60;
/// What a connection or a stream costs until it is measured: TLS state, and a buffer of one TLS record each way with what
/// TLS makes of it.
const COST: u64 = 64 * 1024;
/// What a stream takes while it carries both ways with the smallest buffers, rounded up from the 140 KiB that
/// `relay/tests/capacity.rs` saw: a TLS record each, ours and TLS' own, what is half read, and TLS state. One at rest takes
/// a quarter of it, and may carry at any moment.
const CARRYING: u64 = 160 * 1024;
/// The same with the largest buffers: a DATA frame of ours each way, and as much again in TLS.
const GROWN: u64 = 1024 * 1024;
/// What all threads may keep in spare buffers, as a part of the limit.
const SPARE: u64 = 32;
/// A look is good for so long: what begins meanwhile is taken at its cost.
const LOOK_EVERY: Duration = Duration::from_millis(100);

static MEMORY: LazyLock<Option<Memory>> =
    LazyLock::new(|| Some(Memory { group: Group::of_process()?, left: Mutex::default(), free: AtomicU64::new(0) }));

/// Streams in this process.
static CARRIED: AtomicU64 = AtomicU64::new(0);

/// Counts a stream of this process as long as it lives.
pub(crate) struct Carried;

impl Carried {
    pub(crate) fn new() -> Self {
        CARRIED.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        CARRIED.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Memory {
    group: Group,
    left: Mutex<Option<Left>>,
    /// What buffers may grow into, as seen by the last look.
    free: AtomicU64,
}

/// What may begin until the next look.
#[derive(Clone, Copy)]
struct Left {
    bytes: u64,
    seen: Instant,
}

/// Whether one more stream or connection may begin; what it costs is taken.
pub(super) fn admit() -> Result<(), Shortage> {
    MEMORY.as_ref().map_or(Ok(()), |memory| memory.admit(CARRIED.load(Ordering::Relaxed), Instant::now()))
}

/// Whether buffers may grow beyond their first size, those of every stream that lives.
pub(crate) fn is_ample() -> bool {
    MEMORY.as_ref().is_none_or(|memory| memory.lets_grow(CARRIED.load(Ordering::Relaxed)))
}

/// How many bytes of spare buffers one thread may keep: they are charged like what is in use, and nobody takes them back.
pub(crate) fn spare() -> usize {
    static BYTES: LazyLock<usize> = LazyLock::new(|| {
        let threads = LANES * std::thread::available_parallelism().map_or(1, usize::from);
        MEMORY.as_ref().map_or(usize::MAX, |memory| spare_of(memory.group.limit, threads))
    });
    *BYTES
}

/// The share of one of `threads`.
fn spare_of(limit: u64, threads: usize) -> usize {
    usize::try_from(limit / SPARE).unwrap_or(usize::MAX) / threads
}

/// Looks, so that [`is_ample`] is true to the moment; a link's clock calls it.
pub(crate) fn look() {
    if let Some(memory) = &*MEMORY {
        *locked(&memory.left) = Some(memory.look(Instant::now()));
    }
}

impl Memory {
    /// Beside the `carried` streams that live.
    fn admit(&self, carried: u64, now: Instant) -> Result<(), Shortage> {
        if carried * CARRYING >= self.to_fill() {
            return Err(Shortage::Memory(self.group.limit));
        }
        let mut known = locked(&self.left);
        let left = match *known {
            Some(left) if now.saturating_duration_since(left.seen) < LOOK_EVERY => left,
            _ => self.look(now),
        };
        let after = left.bytes.checked_sub(COST);
        *known = Some(Left { bytes: after.unwrap_or(left.bytes), ..left });
        after.map(drop).ok_or(Shortage::Memory(self.group.limit))
    }

    /// Where all that live may have grown before the next look.
    fn lets_grow(&self, carried: u64) -> bool {
        carried * GROWN <= self.free.load(Ordering::Relaxed)
    }

    /// A quarter is kept for what lives.
    fn to_fill(&self) -> u64 {
        self.group.limit - self.group.limit / 4
    }

    /// Where nothing can be read, because no descriptor is left, nothing more may begin.
    fn look(&self, now: Instant) -> Left {
        let limit = self.group.limit;
        let used = self.group.used().unwrap_or(limit);
        let bytes = self.to_fill().saturating_sub(used);
        self.free.store(bytes, Ordering::Relaxed);
        Left { bytes, seen: now }
    }
}

/// A control group with a memory limit.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    limit: u64,
    folder: PathBuf,
    version: Version,
}

/// Of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Group {
    fn of_process() -> Option<Self> {
        Self::named(&fs::read_to_string("/proc/self/cgroup").ok()?, Path::new("/sys/fs/cgroup"))
    }

    /// The group that `/proc/self/cgroup` names, or the nearest above it that sets a limit.
    fn named(groups: &str, mount: &Path) -> Option<Self> {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let (version, mount) = match controllers {
                "" => (Version::Two, mount.to_owned()),
                list if list.split(',').any(|name| name == "memory") => (Version::One, mount.join("memory")),
                _ => return None,
            };
            // In a container the path may be the host's: then only the mount itself is there.
            let within = mount.join(path.trim_start_matches('/'));
            within.ancestors().take_while(|at| at.starts_with(&mount)).find_map(|at| Self::at(at, version))
        })
    }

    fn at(folder: &Path, version: Version) -> Option<Self> {
        let limit = number(&folder.join(version.limit()))?;
        (limit < NO_LIMIT).then(|| Self { limit, folder: folder.to_owned(), version })
    }

    fn used(&self) -> Option<u64> {
        let charged = number(&self.folder.join(self.version.usage()))?;
        let stat = fs::read_to_string(self.folder.join("memory.stat")).ok()?;
        let cache = stat.lines().filter_map(|line| line.split_once(' '));
        let cache = cache.filter(|(name, _)| self.version.cache().contains(name));
        Some(charged.saturating_sub(cache.filter_map(|(_, bytes)| bytes.parse::<u64>().ok()).sum()))
    }
}

impl Version {
    const fn limit(self) -> &'static str {
        match self {
            Self::One => "memory.limit_in_bytes",
            Self::Two => "memory.max",
        }
    }

    const fn usage(self) -> &'static str {
        match self {
            Self::One => "memory.usage_in_bytes",
            Self::Two => "memory.current",
        }
    }

    const fn cache(self) -> &'static [&'static str] {
        match self {
            Self::One => &["total_active_file", "total_inactive_file"],
            Self::Two => &["active_file", "inactive_file"],
        }
    }
}

/// `max` is no number, and no limit.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of control groups: `(path below the mount, file, content)`.
    fn tree(files: &[(&str, &str, &str)]) -> tempfile::TempDir {
        let mount = tempfile::tempdir().unwrap();
        for (group, file, content) in files {
            let folder = mount.path().join(group);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(file), content).unwrap();
        }
        mount
    }

    #[test]
    fn the_nearest_limit_counts_and_the_file_cache_does_not() {
        let mount = tree(&[
            ("system/relay", "memory.max", "max\n"),
            ("system", "memory.max", "67108864\n"),
            ("system", "memory.current", "30000000\n"),
            ("system", "memory.stat", "anon 9\nactive_file 5000000\ninactive_file 1000000\nactive_file_x 7\n"),
        ]);
        let group = Group::named("0::/system/relay\n", mount.path()).unwrap();
        assert_eq!((group.limit, group.version, group.used()), (67_108_864, Version::Two, Some(24_000_000)));
    }

    #[test]
    fn version_one_is_read_too_and_its_largest_number_is_no_limit() {
        let names = "3:cpu:/a\n2:memory,hugetlb:/a\n0::/\n";
        let mount = tree(&[
            ("memory/a", "memory.limit_in_bytes", "1000000"),
            ("memory/a", "memory.usage_in_bytes", "900000"),
            ("memory/a", "memory.stat", "active_file 5\ntotal_active_file 100000\ntotal_inactive_file 1\n"),
        ]);
        let group = Group::named(names, mount.path()).unwrap();
        assert_eq!((group.limit, group.version, group.used()), (1_000_000, Version::One, Some(799_999)));
        fs::write(mount.path().join("memory/a/memory.limit_in_bytes"), "9223372036854771712").unwrap();
        assert_eq!(Group::named(names, mount.path()), None);
    }

    #[test]
    fn the_path_of_another_namespace_leads_to_the_mount() {
        let mount = tree(&[(".", "memory.max", "1000000")]);
        let group = Group::named("0::/kubepods/pod1\n", mount.path()).unwrap();
        assert_eq!(group.limit, 1_000_000);
        assert_eq!(Group::named("0::/../../x\n", mount.path()).map(|group| group.limit), Some(1_000_000));
    }

    #[test]
    fn spare_buffers_are_a_small_part_of_the_limit_however_many_threads_there_are() {
        assert_eq!(spare_of(256 << 20, 2), 4 << 20);
        assert_eq!(64 * spare_of(256 << 20, 64), 8 << 20);
    }

    #[test]
    fn what_begins_between_two_looks_is_taken_at_its_cost_and_no_more_begins_than_fits() {
        let mount = tree(&[
            (".", "memory.max", "4194304"),
            (".", "memory.current", "2621440"),
            (".", "memory.stat", "inactive_file 0"),
        ]);
        let group = Group::named("0::/\n", mount.path()).unwrap();
        let memory = Memory { group, left: Mutex::default(), free: AtomicU64::new(0) };
        let start = Instant::now();
        let admitted = |at| (0..100).filter(|_| memory.admit(0, at).is_ok()).count();
        assert_eq!(admitted(start), 8, "three quarters of 4 MiB, less 2.5 MiB");
        assert!(memory.lets_grow(0) && !memory.lets_grow(1), "half a MiB is free");
        assert_eq!(admitted(start + LOOK_EVERY), 8, "none of them is seen yet in what is charged");
        assert!(memory.admit(19, start + 2 * LOOK_EVERY).is_ok());
        assert!(memory.admit(20, start + 2 * LOOK_EVERY).is_err(), "3 MiB are for 20 streams that carry");
        fs::remove_file(mount.path().join("memory.current")).unwrap();
        assert_eq!(admitted(start + 3 * LOOK_EVERY), 0, "what cannot be seen is taken for full");
    }
}
