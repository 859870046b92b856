//! Answers to a CONNECT request. Pure: the one table from reasons to HTTP's status codes.

use super::request::BadRequest;
use crate::wire::Code;

/// The tunnel stands.
pub(super) const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// A status of HTTP, its name, and what a partner can do.
type Status = (u16, &'static str, &'static str);

/// A request that was understood and is refused.
pub(super) fn refusal(code: Code, retry_after_ms: Option<u32>, text: &str) -> Vec<u8> {
    let status = status(code);
    // Where nobody says when, soon: another relay may be there already.
    let retry_after_ms = retry_after_ms.or((status.0 == 503).then_some(1_000));
    let retry = retry_after_ms.map(|ms| format!("Retry-After: {}\r\n", ms.div_ceil(1_000)));
    render(status, code, &retry.unwrap_or_default(), text)
}

/// A request that was not understood.
pub(super) fn bad_request(error: BadRequest) -> Vec<u8> {
    let remedy = "See docs/partners.md of SecureLink.";
    let status = match error {
        BadRequest::NoExport | BadRequest::Agreement => status(error.code()),
        BadRequest::Method => (405, "Method Not Allowed", remedy),
        BadRequest::Slow => (408, "Request Timeout", remedy),
        BadRequest::TooLong => (431, "Request Header Fields Too Large", remedy),
        BadRequest::Version => (505, "HTTP Version Not Supported", remedy),
        _ => (400, "Bad Request", remedy),
    };
    let allow = if error == BadRequest::Method { "Allow: CONNECT\r\n" } else { "" };
    render(status, error.code(), allow, &error.to_string())
}

fn status(code: Code) -> Status {
    match code {
        Code::Denied => (403, "Forbidden", "Ask the other side whether this service is meant for you."),
        Code::NotAgreed => (
            403,
            "Forbidden",
            "Send Securelink-Agreement with the digest of the agreement in force, as the annex names it.",
        ),
        Code::Suspended => (403, "Forbidden", "The other side has suspended the link; ask it when it resumes."),
        Code::Cut => (403, "Forbidden", "The other side has cut the link; call its duty desk."),
        Code::Expired => (403, "Forbidden", "The agreement has ended; send the digest of its renewal."),
        Code::TrustChanged => (403, "Forbidden", "Connect anew with a certificate under a root that is pinned there."),
        Code::UnknownExport => (404, "Not Found", "Compare the export's name with the annex."),
        Code::Limit => (429, "Too Many Requests", "Keep fewer tunnels, or open them more slowly."),
        Code::Unavailable => (502, "Bad Gateway", "Ask the other side whether its service runs."),
        Code::Overloaded | Code::Draining => (503, "Service Unavailable", "Try again."),
        Code::Timeout => (504, "Gateway Timeout", "Try again."),
        Code::Protocol => (400, "Bad Request", "See docs/partners.md of SecureLink."),
        Code::Version | Code::TargetReset | Code::PeerLost | Code::Internal | Code::Unknown(_) => {
            (500, "Internal Server Error", "Tell the other side.")
        }
    }
}

/// The text goes into the body alone: a line break in it must not become a field.
fn render((status, name, remedy): Status, code: Code, fields: &str, text: &str) -> Vec<u8> {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    let body = format!("{code}: {text}\n{remedy}\n");
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} {name}\r\nSecurelink-Code: {code}\r\n{fields}Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    (head + &body).into_bytes()
}
