//! Where the bench runs: a network namespace of its own with cubic, for a congestion control that paces clamps loopback
//! and hides every difference. Says what it found, so that figures are compared only where they can be.

use std::env;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

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
    let script = "ip link set lo up
        for to in 127.0.0.0/8 127.0.0.1; do
            ip route replace table local local $to dev lo proto kernel scope host src 127.0.0.1 congctl cubic
        done
        exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--net", "--", "sh", "-c", script, "sh"]).arg(itself).args(arguments).env(MARK, "own");
    let status = command.status().unwrap();
    std::process::exit(status.code().unwrap_or(1));
}

/// Prints what figures depend on.
pub fn describe() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let control = socket2::SockRef::from(&socket).tcp_congestion().unwrap_or_default();
    let control = String::from_utf8_lossy(&control).trim_end_matches('\0').to_owned();
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    println!("place: {} network namespace, loopback, {control}", if is_own() { "own" } else { "shared" });
    println!(
        "machine: {cores} cores, {}, Linux {}",
        model.trim_start_matches([' ', '\t', ':']),
        read("/proc/sys/kernel/osrelease").trim()
    );
    println!("load before: {}", read("/proc/loadavg").trim());
}
