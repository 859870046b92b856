//! A network of a test's own, in which things can fail: a network namespace, addresses on its loopback, faults by nft.
//! Where there is no root, a test that needs one is skipped.

use std::env;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

use super::skipped::skipped;

/// Tells the process inside from the one outside.
const INSIDE: &str = "SECURELINK_TEST_NETWORK";

/// Runs `body` in a network and a mount namespace of its own, which is the test `name` run once more in a process of its own.
pub fn isolated<F: Future<Output = ()>>(name: &str, body: impl FnOnce() -> F) {
    if env::var_os(INSIDE).is_some() {
        ip("link set lo up");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(body());
    }
    let may =
        Command::new("unshare").args(["--net", "--mount", "nft", "list", "ruleset"]).stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        return skipped(&format!("{name} needs root, unshare and nft for a network of its own"));
    }
    let inside = Command::new("unshare")
        .args(["--net", "--mount"])
        .arg(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--include-ignored"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inside.stdout) + String::from_utf8_lossy(&inside.stderr);
    assert!(said.contains("1 passed") || !inside.status.success(), "no test is called {name}\n{said}");
    assert!(inside.status.success(), "{name} failed in its network\n{said}");
}

fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

pub fn ip(arguments: &str) {
    run("ip", arguments);
}

/// Gives this network an address; nothing but a fault can keep others in it from reaching it.
pub fn add_address(address: IpAddr) {
    ip(&format!("addr add {address}/32 dev lo"));
}

/// Another machine, by a name that is its own: its end of a cable has `there`, ours `here`.
pub fn add_machine(name: &str, here: IpAddr, there: IpAddr) {
    // Where `ip` keeps the names of such networks; the test's own, as the mount namespace is.
    std::fs::create_dir_all("/run/netns").unwrap();
    run("mount", "-t tmpfs none /run/netns");
    ip(&format!("netns add {name}"));
    ip(&format!("link add near type veth peer name far netns {name}"));
    ip(&format!("addr add {here}/24 dev near"));
    ip("link set near up");
    ip(&format!("-n {name} addr add {there}/24 dev far"));
    ip(&format!("-n {name} link set far up"));
    ip(&format!("-n {name} link set lo up"));
}

/// Its cable is pulled.
pub fn lose_machine(name: &str) {
    ip(&format!("-n {name} link set far down"));
}

/// Replaces all rules for packets that arrive. Dropped on arrival, because a sender is told of what is dropped as it leaves.
pub fn rules(rules: &str) {
    let table = format!("table inet faults\ndelete table inet faults\ntable inet faults {{\n{rules}\n}}\n");
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(table.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "{table}");
}

fn dropping(matches: &[String]) {
    let mut all = String::from("chain arriving { type filter hook input priority 0;\n");
    for what in matches {
        writeln!(all, "{what} drop").unwrap();
    }
    rules(&(all + "}"));
}

/// Packets from and to these addresses vanish.
pub fn black_hole(addresses: &[IpAddr]) {
    let one = |address: &IpAddr| [format!("ip saddr {address}"), format!("ip daddr {address}")];
    dropping(&addresses.iter().flat_map(one).collect::<Vec<_>>());
}

/// Packets of the TCP connections between these sockets vanish, those of all others pass.
pub fn swallow(connections: &[(SocketAddr, SocketAddr)]) {
    let one_way = |from: SocketAddr, to: SocketAddr| {
        format!("ip saddr {} tcp sport {} ip daddr {} tcp dport {}", from.ip(), from.port(), to.ip(), to.port())
    };
    let both = |(a, b): &(SocketAddr, SocketAddr)| [one_way(*a, *b), one_way(*b, *a)];
    dropping(&connections.iter().flat_map(both).collect::<Vec<_>>());
}

/// Connections to `port` over which nothing passed for `seconds` are forgotten silently, as a load balancer does.
pub fn forget_idle_flows(port: u16, seconds: u32) {
    rules(&format!(
        "set flows {{ type ipv4_addr . inet_service; flags dynamic, timeout; timeout {seconds}s; }}
        chain arriving {{ type filter hook input priority 0;
            tcp dport {port} tcp flags & (syn | ack) == syn update @flows {{ ip saddr . tcp sport }} accept
            tcp dport {port} ip saddr . tcp sport @flows update @flows {{ ip saddr . tcp sport }} accept
            tcp dport {port} drop
            tcp sport {port} ip daddr . tcp dport @flows update @flows {{ ip daddr . tcp dport }} accept
            tcp sport {port} drop
        }}"
    ));
}

/// Everything passes again.
pub fn heal() {
    rules("");
}

/// The established TCP connections of this network to `port`: who dialed, and whom.
pub fn connections_to(port: u16) -> Vec<(SocketAddr, SocketAddr)> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let established = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        (state == "01").then(|| (parse(local), parse(remote)))
    });
    established.filter(|(_, remote)| remote.port() == port).collect()
}

/// An address of the kernel's table: hexadecimal, the host's bytes reversed.
fn parse(text: &str) -> SocketAddr {
    let (host, port) = text.split_once(':').unwrap();
    let host = u32::from_str_radix(host, 16).unwrap().to_ne_bytes();
    SocketAddr::from((host, u16::from_str_radix(port, 16).unwrap()))
}

/// A name server of the test's own, to which this network's lookups go.
pub mod names {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;
    use std::sync::{Arc, Mutex};

    use tokio::net::UdpSocket;
    use tokio::sync::watch;

    /// What it says.
    pub type Zone = BTreeMap<String, Vec<Ipv4Addr>>;

    /// It runs.
    pub struct Server {
        /// It is silent while there is nothing in it.
        pub zone: Arc<Mutex<Option<Zone>>>,
        /// How many questions it was asked.
        pub asked: watch::Receiver<u64>,
    }

    impl Server {
        /// Waits until a lookup that begins now is over, and answered by nothing if it is silent.
        pub async fn until_tried(&mut self) {
            // Two questions each, for both kinds of address; a third one belongs to the next lookup.
            let next = *self.asked.borrow() + 3;
            let asked = self.asked.wait_for(|asked| *asked >= next);
            tokio::time::timeout(super::super::PATIENCE, asked).await.expect("the name is looked up").unwrap();
        }
    }

    /// Starts it.
    pub async fn serve() -> Server {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
        super::run("mount", &format!("--bind {} /etc/resolv.conf", file.path().display()));
        let socket = UdpSocket::bind("127.0.0.1:53").await.unwrap();
        let zone = Arc::default();
        let (count, asked) = watch::channel(0);
        let server = Server { zone: Arc::clone(&zone), asked };
        let said: Arc<Mutex<Option<Zone>>> = zone;
        tokio::spawn(async move {
            // The mount needs the file.
            let _file = file;
            let mut question = [0; 512];
            while let Ok((length, asker)) = socket.recv_from(&mut question).await {
                count.send_modify(|count| *count += 1);
                let answer = said.lock().unwrap().as_ref().and_then(|zone| answer(zone, &question[..length]));
                if let Some(answer) = answer {
                    socket.send_to(&answer, asker).await.unwrap();
                }
            }
        });
        server
    }

    /// RFC 1035, one question: its addresses, or none, or no such name.
    fn answer(zone: &Zone, question: &[u8]) -> Option<Vec<u8>> {
        let (mut labels, mut at) = (Vec::new(), 12);
        while let length @ 1.. = usize::from(*question.get(at)?) {
            labels.push(String::from_utf8_lossy(question.get(at + 1..=at + length)?).to_lowercase());
            at += 1 + length;
        }
        let end = at + 5;
        let wants_a = *question.get(at + 2)? == 1;
        let known = zone.get(&labels.join("."));
        let addresses: &[Ipv4Addr] = known.filter(|_| wants_a).map_or(&[], Vec::as_slice);
        let code = if known.is_some() { 0 } else { 3 };
        let count = u8::try_from(addresses.len()).ok()?;
        let mut answer = question.get(..2)?.to_vec();
        answer.extend([0x84, code, 0, 1, 0, count, 0, 0, 0, 0]);
        answer.extend(question.get(12..end)?);
        for address in addresses {
            // The name of the question, A, IN, for no time at all.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
            answer.extend(address.octets());
        }
        Some(answer)
    }
}
