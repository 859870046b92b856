//! Where the bench runs: a network namespace of its own with cubic, for a congestion control that paces clamps loopback
//! and hides every difference. Says what it found, so that figures are compared only where they can be.

use std::env;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Instant;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::figures::percentile;

/// Bytes of a record, how many make a pass, and how many of those there are.
const RECORD: usize = 16 * 1024;
const RECORDS: usize = 4096;
const PASSES: usize = 5;
const GIB_OF_A_PASS: f64 = 1.0 / 16.0;

const MARK: &str = "SECURELINK_BENCH_PLACE";

/// Whether this process has moved already.
pub fn is_own() -> bool {
    env::var_os(MARK).is_some()
}

/// Runs this bench once more in a network namespace of its own; false where that needs rights we lack.
pub fn move_into_own(arguments: &[String]) -> bool {
    let tried = Command::new("unshare").args(["--net", "--", "true"]).stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        println!("place: this machine's own network, for lack of root; expect its congestion control to tell");
        return false;
    }
    let itself = env::current_exe().unwrap();
    // On the routes, since a namespace may be allowed no other default than the machine's.
    // More ports to connect from than the usual 28 000, which a minute of new streams uses up.
    let script = "ip link set lo up
        echo 10240 65000 > /proc/sys/net/ipv4/ip_local_port_range
        for to in 127.0.0.0/8 127.0.0.1; do
            ip route replace table local local $to dev lo proto kernel scope host src 127.0.0.1 congctl cubic
        done
        exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--net", "--", "sh", "-c", script, "sh"]).arg(itself).args(arguments).env(MARK, "own");
    let status = command.status().unwrap();
    std::process::exit(status.code().unwrap_or(1));
}

/// As many files as this process and its children may open: thousands of streams are measured.
pub fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // With fewer, the measures that need more fail and say so.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// What figures depend on.
pub fn describe() -> Vec<String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let control = socket2::SockRef::from(&socket).tcp_congestion().unwrap_or_default();
    let control = String::from_utf8_lossy(&control).trim_end_matches('\0').to_owned();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let flags = cpu.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    // What AES-GCM can be made of: libraries differ in what they use.
    let aes = ["aes", "vaes", "vpclmulqdq", "avx2", "avx512f"];
    let aes: Vec<_> = aes.into_iter().filter(|flag| flags.split_whitespace().any(|has| has == *flag)).collect();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = read("/proc/meminfo");
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or("unknown");
    vec![
        format!("place: {} network namespace, loopback, {control}", if is_own() { "own" } else { "shared" }),
        format!(
            "machine: {cores} cores, {} ({}), {}, Linux {}",
            model.trim_start_matches([' ', '\t', ':']),
            aes.join(" "),
            memory.trim(),
            read("/proc/sys/kernel/osrelease").trim()
        ),
        format!("load before: {}", load()),
        aes_cost(),
    ]
}

/// What no relay of ours can do without: each seals or opens every byte once. The median of some passes, by a record's worth.
pub fn aes_cost() -> String {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
    let nonce = || Nonce::assume_unique_for_key([7; NONCE_LEN]);
    let (mut record, mut opened) = (vec![0; RECORD], vec![0; RECORD]);
    let mut passes = [const { Vec::new() }; 2];
    for _ in 0..PASSES {
        let mut tag = None;
        let start = Instant::now();
        for _ in 0..RECORDS {
            tag = Some(key.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut record).unwrap());
        }
        passes[0].push(start.elapsed());
        let (tag, start) = (tag.unwrap(), Instant::now());
        for _ in 0..RECORDS {
            key.open_separate_gather(nonce(), Aad::empty(), &record, tag.as_ref(), &mut opened).unwrap();
        }
        passes[1].push(start.elapsed());
    }
    let [seal, open] = passes.map(|mut passes| percentile(&mut passes, 50) / 1e6 / GIB_OF_A_PASS);
    format!("AES-256-GCM of AWS-LC: {seal:.2} s/GiB to seal, {open:.2} to open")
}

/// The load of the whole machine.
pub fn load() -> String {
    read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
