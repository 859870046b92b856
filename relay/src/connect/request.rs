//! The head of a CONNECT request: bytes to a value. Pure. Strict: there is one way to write each thing and nothing is
//! repaired, for what two readers understand differently can be smuggled past one of them (RFC 9112 section 11.2).

use securelink_relay_config::Digest;

use crate::wire::{Code, is_label};

/// Most bytes of a head: as much as common servers take, and far more than a request here needs.
pub const MAX_HEAD: usize = 8 * 1024;
/// Most fields in it.
const MAX_FIELDS: usize = 64;

/// What a partner asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The export it wants.
    pub export: String,
    /// The agreement it names.
    pub agreement: Option<Digest>,
}

/// Why a request was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// The first line.
    #[error("the first line is no request; write `CONNECT <export>:443 HTTP/1.1`")]
    Line,
    /// Another method.
    #[error("only CONNECT is served here; use your client's option for tunneling through a proxy")]
    Method,
    /// Another version.
    #[error("only HTTP/1.1 is spoken here; let your client speak it")]
    Version,
    /// Nothing that can be asked for.
    #[error("the target is not `<export>` or `<export>:<port>`; write the export's name and any port")]
    Target,
    /// No export can have that name.
    #[error("no export has such a name; names are in the agreement's annex")]
    NoExport,
    /// A line does not end as it must.
    #[error("a line does not end with CR LF, and with nothing else; end each so")]
    LineEnd,
    /// A line is no field.
    #[error("a header field is not `Name: value` in ASCII on one line; write it so")]
    Field,
    /// Too much of it.
    #[error("the head of the request has more than {MAX_HEAD} bytes or {MAX_FIELDS} fields; send less")]
    TooLong,
    /// It announces a body.
    #[error("CONNECT has no body; leave {0} out")]
    Body(&'static str),
    /// Something that must be clear is said twice.
    #[error("{0} appears twice; send it once")]
    Twice(&'static str),
    /// `Host` says something else than the target, or nothing.
    #[error("Host must be there and equal to the target of CONNECT; leave it to your client")]
    Host,
    /// The agreement is not named as it must be.
    #[error("Securelink-Agreement is not `sha256:` and 64 lower-case hexadecimal digits; copy it from the annex")]
    Agreement,
    /// Bytes before the answer.
    #[error("bytes came before the answer; send nothing after the request until 200 has come")]
    Early,
    /// It took too long.
    #[error("the request did not come whole in time; send it at once")]
    Slow,
}

impl BadRequest {
    /// Its place in the one table of reasons.
    pub fn code(self) -> Code {
        match self {
            Self::NoExport => Code::UnknownExport,
            Self::Agreement => Code::NotAgreed,
            Self::Slow => Code::Timeout,
            Self::Version => Code::Version,
            Self::TooLong => Code::Limit,
            _ => Code::Protocol,
        }
    }
}

/// Reads what has come so far: the request once it is whole, nothing while more must come.
pub fn read(bytes: &[u8]) -> Result<Option<Request>, BadRequest> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    loop {
        match split_line(rest)? {
            None if bytes.len() < MAX_HEAD => return Ok(None),
            Some((b"", _)) if lines.is_empty() => return Err(BadRequest::Line),
            Some((b"", after)) if bytes.len() - after.len() <= MAX_HEAD => {
                return if after.is_empty() { parse(&lines).map(Some) } else { Err(BadRequest::Early) };
            }
            Some((line, after)) if lines.len() <= MAX_FIELDS => {
                lines.push(line);
                rest = after;
            }
            _ => return Err(BadRequest::TooLong),
        }
    }
}

/// A line without its end, and what follows it.
type Split<'a> = (&'a [u8], &'a [u8]);

/// The first line, if its end has come.
fn split_line(bytes: &[u8]) -> Result<Option<Split<'_>>, BadRequest> {
    let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else { return Ok(None) };
    match bytes.split_at(end) {
        (line, [b'\r', b'\n', after @ ..]) => Ok(Some((line, after))),
        (_, [b'\r']) => Ok(None),
        _ => Err(BadRequest::LineEnd),
    }
}

fn parse(lines: &[&[u8]]) -> Result<Request, BadRequest> {
    let (first, fields) = lines.split_first().ok_or(BadRequest::Line)?;
    let target = target(first)?;
    let (mut host, mut agreement) = (None, None);
    for field in fields {
        let (name, value) = split_field(field)?;
        match name.to_ascii_lowercase().as_str() {
            "host" => once(&mut host, value, "Host")?,
            "securelink-agreement" => once(&mut agreement, value, "Securelink-Agreement")?,
            "content-length" => return Err(BadRequest::Body("Content-Length")),
            "transfer-encoding" => return Err(BadRequest::Body("Transfer-Encoding")),
            "expect" => return Err(BadRequest::Body("Expect")),
            // A client says much about itself that is nobody's business here.
            _ => {}
        }
    }
    if host != Some(target) {
        return Err(BadRequest::Host);
    }
    let export = export(target)?.to_owned();
    let agreement = agreement.map(str::parse).transpose().map_err(|_| BadRequest::Agreement)?;
    Ok(Request { export, agreement })
}

/// What the request line asks for.
fn target(line: &[u8]) -> Result<&str, BadRequest> {
    let line = str::from_utf8(line).map_err(|_| BadRequest::Line)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BadRequest::Line);
    };
    if !is_token(method) || !target.bytes().all(|byte| byte.is_ascii_graphic()) || !version.starts_with("HTTP/") {
        return Err(BadRequest::Line);
    }
    match (method, version) {
        ("CONNECT", "HTTP/1.1") => Ok(target),
        ("CONNECT", _) => Err(BadRequest::Version),
        _ => Err(BadRequest::Method),
    }
}

/// The export's name alone, or with a port, which clients cannot leave out (RFC 9110 section 9.3.6) and which means nothing.
fn export(target: &str) -> Result<&str, BadRequest> {
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port > 0);
    let name = match target.split_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return Err(BadRequest::Target),
        None => target,
    };
    if is_label(name) { Ok(name) } else { Err(BadRequest::NoExport) }
}

fn split_field(line: &[u8]) -> Result<(&str, &str), BadRequest> {
    let line = str::from_utf8(line).map_err(|_| BadRequest::Field)?;
    // A line that begins with a space goes on with the one before it in old HTTP: its name is no token.
    let (name, value) = line.split_once(':').filter(|(name, _)| is_token(name)).ok_or(BadRequest::Field)?;
    let plain = |byte: u8| byte == b'\t' || matches!(byte, b' '..=b'~');
    if value.bytes().all(plain) { Ok((name, value.trim_matches([' ', '\t']))) } else { Err(BadRequest::Field) }
}

fn once<'a>(place: &mut Option<&'a str>, value: &'a str, name: &'static str) -> Result<(), BadRequest> {
    if place.replace(value).is_some() { Err(BadRequest::Twice(name)) } else { Ok(()) }
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let symbol = |byte: u8| b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || symbol(byte))
}
