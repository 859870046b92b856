//! Reaching an address: names resolved, addresses that are never dialed, a proxy on the way. Knows neither TLS nor links.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use ipnet::IpNet;
use securelink_relay_config::Endpoint;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::failure::Failure;

/// Time for one address to answer: two retransmissions of a SYN (RFC 6298: at 1 s and 3 s) and a round trip.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Time for the resolver: its own default gives up after 5 s.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a proxy to connect us.
const PROXY_TIMEOUT: Duration = Duration::from_secs(8);
/// Longest answer of a proxy, its headers included.
const PROXY_ANSWER: usize = 8 * 1024;
/// Keepalive of pooled and control sockets: cloud load balancers drop idle flows after 4 to 6 minutes (relay).
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(5), 3);

/// Dials `endpoint`, trying its addresses in turn.
pub(crate) async fn dial(endpoint: &Endpoint, denied: &[&[IpNet]]) -> Result<TcpStream, Failure> {
    let mut last = no_address(endpoint);
    for address in permitted(endpoint, resolve(endpoint).await?, denied)? {
        match dial_address(endpoint, address).await {
            Ok(stream) => return Ok(stream),
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

/// Those of an endpoint's addresses that may be dialed.
pub(crate) fn permitted(
    endpoint: &Endpoint,
    addresses: Vec<SocketAddr>,
    denied: &[&[IpNet]],
) -> Result<Vec<SocketAddr>, Failure> {
    let (never, permitted): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|one| is_denied(one.ip(), denied));
    match never.first() {
        Some(first) if permitted.is_empty() => {
            Err(Failure::Denied { endpoint: endpoint.to_string(), address: first.ip() })
        }
        _ => Ok(permitted),
    }
}

fn no_address(endpoint: &Endpoint) -> Failure {
    Failure::Dns { host: endpoint.host.clone(), error: io::Error::other("the name has no address") }
}

/// The addresses that the endpoint's name has now, at least one.
pub(crate) async fn resolve(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, Failure> {
    let failed = |error| Failure::Dns { host: endpoint.host.clone(), error };
    match timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port))).await {
        Ok(Ok(addresses)) => {
            let addresses: Vec<_> = addresses.collect();
            if addresses.is_empty() { Err(no_address(endpoint)) } else { Ok(addresses) }
        }
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
    }
}

/// Dials one address of `endpoint`.
pub(crate) async fn dial_address(endpoint: &Endpoint, address: SocketAddr) -> Result<TcpStream, Failure> {
    let endpoint = || endpoint.to_string();
    match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            tune(&stream);
            Ok(stream)
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(Failure::Refused { endpoint: endpoint() })
        }
        Ok(Err(error)) => Err(Failure::Socket { endpoint: endpoint(), error }),
        Err(_) => Err(Failure::TimedOut { endpoint: endpoint() }),
    }
}

/// Small writes leave at once, silent peers are found. What a listener accepts is as the listener is (Linux: so it is with
/// every option set here).
pub(crate) fn tune(socket: &impl AsFd) {
    let (idle, interval, retries) = KEEPALIVE;
    let keepalive = socket2::TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(retries);
    // A socket that is gone already fails at its first use, with a better error.
    let _ = SockRef::from(socket).set_tcp_nodelay(true);
    let _ = SockRef::from(socket).set_tcp_keepalive(&keepalive);
}

/// Closing the socket will say RST: its application sees an abort, never a clean end (promise P8). Holds also when it is
/// the system that closes it, because this process was killed.
pub(crate) fn abort_on_close(socket: &impl AsFd) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Closing the socket will send what waits and say FIN.
pub(crate) fn finish_on_close(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(None);
}

/// Whether an address may not be dialed. An IPv4 address in IPv6 clothes is judged as what it is.
fn is_denied(address: IpAddr, denied: &[&[IpNet]]) -> bool {
    let plain = address.to_canonical();
    denied.iter().flat_map(|list| list.iter()).any(|net| net.contains(&plain) || net.contains(&address))
}

/// Dials `endpoint` through an HTTP proxy by CONNECT (RFC 9110 section 9.3.6). The proxy resolves the name.
pub(crate) async fn dial_by_proxy(
    proxy: &Endpoint,
    endpoint: &Endpoint,
    denied: &[&[IpNet]],
) -> Result<TcpStream, Failure> {
    let mut stream = dial(proxy, denied).await?;
    let failed = |message: String| Failure::Proxy { proxy: proxy.to_string(), message };
    match timeout(PROXY_TIMEOUT, connect_request(&mut stream, endpoint)).await {
        Ok(Ok(status)) if status.starts_with('2') => Ok(stream),
        Ok(Ok(status)) => Err(failed(format!("it answers {}", status.escape_debug()))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("it does not answer".to_owned())),
    }
}

/// Asks and returns the status line's code and reason. Reads byte by byte: what follows belongs to TLS.
async fn connect_request(stream: &mut TcpStream, endpoint: &Endpoint) -> io::Result<String> {
    let request = format!("CONNECT {endpoint} HTTP/1.1\r\nHost: {endpoint}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == PROXY_ANSWER {
            return Err(io::Error::other("its answer is too long"));
        }
        answer.push(stream.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&answer);
    let status = text.lines().next().and_then(|line| line.strip_prefix("HTTP/1."));
    let status = status.and_then(|line| line.split_once(' ')).map(|(_, status)| status.chars().take(64).collect());
    status.ok_or_else(|| io::Error::other("it does not speak HTTP/1.1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_denied_in_every_spelling() {
        let nets: Vec<IpNet> =
            ["127.0.0.0/8", "169.254.0.0/16", "::1/128", "fe80::/10"].iter().map(|net| net.parse().unwrap()).collect();
        for denied in ["127.0.0.1", "127.9.9.9", "169.254.169.254", "::1", "fe80::1", "::ffff:127.0.0.1"] {
            assert!(is_denied(denied.parse().unwrap(), &[&nets]), "{denied}");
        }
        for allowed in ["10.0.0.1", "192.0.2.1", "2001:db8::1", "::ffff:10.0.0.1"] {
            assert!(!is_denied(allowed.parse().unwrap(), &[&nets]), "{allowed}");
        }
    }
}
