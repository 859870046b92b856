//! What the lab holds of this machine, seen from outside: from /proc, /sys, `ip` and `nft`, not from the lab's record.
//!
//! Only what is the lab's is ever looked for, so that other work on the machine disturbs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::{fs, io};

use anyhow::{Context, Result, bail};

/// The name that the lab gives its cgroup and its folders.
const MARK: &str = "securelink-lab";
/// The kinds of namespace that a container gets.
const KINDS: [&str; 6] = ["mnt", "net", "pid", "uts", "ipc", "cgroup"];

/// What anybody holds, before the lab is up.
#[derive(Debug, Default)]
pub struct Surroundings {
    interfaces: BTreeSet<String>,
    tables: BTreeSet<String>,
    mounts: BTreeSet<String>,
}

impl Surroundings {
    /// Looks around.
    pub fn now() -> Result<Self> {
        Ok(Self { interfaces: interfaces()?, tables: tables()?, mounts: mounts()? })
    }

    /// Reads what `e2e/run` recorded before it brought the lab up: the output of the same commands, a file each.
    pub fn recorded(folder: &Path) -> Result<Self> {
        let read = |file: &str| {
            let path = folder.join(file);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Self {
            interfaces: interfaces_of(&read("interfaces")?),
            tables: tables_of(&read("tables")?),
            mounts: mounts_of(&read("mounts")?),
        })
    }
}

/// What the lab holds while it is up.
#[derive(Debug)]
pub struct Holdings {
    before: Arc<Surroundings>,
    /// Each process with the tick at which it started, since its number may be used again.
    processes: BTreeMap<(i32, u64), String>,
    namespaces: BTreeSet<String>,
    interfaces: BTreeSet<String>,
}

impl Holdings {
    /// Records all that hangs on the lab's engine.
    pub fn of(engine: i32, before: Arc<Surroundings>) -> Result<Self> {
        let all = processes();
        let mut processes = BTreeMap::new();
        let mut namespaces = BTreeSet::new();
        let ours = own_namespaces();
        for process in all.values().filter(|process| process.marked() || process.is_below(engine, &all)) {
            processes.insert((process.pid, process.started), process.name.clone());
            namespaces.extend(namespaces_of(process.pid).into_iter().filter(|namespace| !ours.contains(namespace)));
        }
        if processes.len() < 3 || namespaces.len() < 3 {
            bail!(
                "the engine, pid {engine}, has only {} processes and {} namespaces",
                processes.len(),
                namespaces.len()
            );
        }
        let interfaces = interfaces()?.difference(&before.interfaces).cloned().collect();
        Ok(Self { before, processes, namespaces, interfaces })
    }

    /// How much there is, for who watches.
    pub fn summary(&self) -> String {
        format!(
            "{} processes, {} namespaces, {} interfaces",
            self.processes.len(),
            self.namespaces.len(),
            self.interfaces.len()
        )
    }

    /// What was recorded, and is still there: processes and the namespaces they were in. The kernel gives a namespace's
    /// number away again, so what `successor`, an engine started since, holds is its own.
    pub fn alive(&self, successor: Option<i32>) -> Vec<String> {
        let mut left = Vec::new();
        let ours = own_namespaces();
        let all = processes();
        for process in all.values().filter(|process| successor.is_none_or(|engine| !process.is_below(engine, &all))) {
            if let Some(name) = self.processes.get(&(process.pid, process.started)) {
                left.push(format!("process {} {name}", process.pid));
            }
            let held = namespaces_of(process.pid);
            for namespace in held.iter().filter(|it| self.namespaces.contains(*it) && !ours.contains(*it)) {
                left.push(format!("namespace {namespace}, held by process {} {}", process.pid, process.name));
            }
        }
        left
    }

    /// All of the lab that is on this machine: what was recorded, and what bears its name or is new since before it.
    pub fn left(&self) -> Result<Vec<String>> {
        let mut left = self.alive(None);
        let now = Surroundings::now()?;
        left.extend(
            processes()
                .values()
                .filter(|process| process.marked())
                .map(|process| format!("process {} {}", process.pid, process.name)),
        );
        left.extend(now.interfaces.intersection(&self.interfaces).map(|name| format!("interface {name}")));
        left.extend(now.tables.difference(&self.before.tables).map(|table| format!("nft {table}")));
        let of_ours =
            |mount: &&String| mount.contains(MARK) || self.namespaces.iter().any(|it| mount.contains(it.as_str()));
        left.extend(now.mounts.difference(&self.before.mounts).filter(of_ours).map(|mount| format!("mount {mount}")));
        left.extend(cgroups(Path::new("/sys/fs/cgroup"), 2).into_iter().map(|path| format!("cgroup {path}")));
        Ok(left)
    }
}

struct Process {
    pid: i32,
    parent: i32,
    started: u64,
    name: String,
    cgroups: String,
}

impl Process {
    /// In a cgroup of the lab.
    fn marked(&self) -> bool {
        self.cgroups.contains(MARK)
    }

    /// The engine itself, or started by it or by what it started.
    fn is_below(&self, engine: i32, all: &BTreeMap<i32, Process>) -> bool {
        let line = std::iter::successors(Some(self), |process| all.get(&process.parent));
        line.take(all.len()).any(|process| process.pid == engine)
    }
}

/// Every process; one that ends meanwhile is left out.
fn processes() -> BTreeMap<i32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(|pid| Some((pid, process(pid)?))).collect()
}

fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything, parentheses too.
    let (head, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
        name: head.split_once('(')?.1.to_owned(),
        cgroups: fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default(),
    })
}

/// As the kernel writes them: `net:[4026531840]`.
fn namespaces_of(pid: i32) -> BTreeSet<String> {
    let links = KINDS.iter().filter_map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok());
    links.map(|link| link.display().to_string()).collect()
}

fn own_namespaces() -> BTreeSet<String> {
    i32::try_from(std::process::id()).map(namespaces_of).unwrap_or_default()
}

fn interfaces() -> Result<BTreeSet<String>> {
    Ok(interfaces_of(&output("ip", &["-brief", "link", "show"])?))
}

fn interfaces_of(said: &str) -> BTreeSet<String> {
    said.lines().filter_map(|line| Some(line.split_whitespace().next()?.split('@').next()?.to_owned())).collect()
}

fn tables() -> Result<BTreeSet<String>> {
    Ok(tables_of(&output("nft", &["list", "tables"])?))
}

fn tables_of(said: &str) -> BTreeSet<String> {
    said.lines().map(str::to_owned).collect()
}

fn mounts() -> Result<BTreeSet<String>> {
    Ok(mounts_of(&fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?))
}

/// Root within the file system and mount point: for a mounted namespace the root is its name.
fn mounts_of(said: &str) -> BTreeSet<String> {
    said.lines().map(|line| line.split(' ').skip(3).take(2).collect::<Vec<_>>().join(" ")).collect()
}

/// The lab's folders below a cgroup root, at most `depth` levels down.
fn cgroups(root: &Path, depth: u8) -> Vec<String> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let found = folders.flat_map(|entry| {
        if entry.file_name().to_string_lossy().contains(MARK) {
            return vec![entry.path().display().to_string()];
        }
        if depth > 1 { cgroups(&entry.path(), depth - 1) } else { Vec::new() }
    });
    found.collect()
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = match Command::new(program).args(arguments).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("{program} is not installed; install it, so that what is left can be seen")
        }
        other => other.with_context(|| format!("cannot run {program}"))?,
    };
    if !output.status.success() {
        bail!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_with_its_parent_and_in_the_line_of_its_ancestors() {
        let all = processes();
        let own = i32::try_from(std::process::id()).expect("a process number");
        let this = all.get(&own).expect("this process");
        assert!(this.is_below(this.parent, &all));
        assert!(!this.is_below(-1, &all));
    }

    #[test]
    fn a_namespace_is_named_as_the_kernel_names_it() {
        let own = own_namespaces();
        assert!(own.iter().any(|name| name.starts_with("net:[")), "{own:?}");
    }
}
