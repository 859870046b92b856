//! The head of a CONNECT request: what is accepted has one reading only, is accepted when it is whole and not before,
//! and what was refused once stays refused whatever follows.

use securelink_relay::connect::{MAX_HEAD, read};

/// Longest message about a bad request: it goes to the partner.
const MAX_WORDS: usize = 256;

/// Reads the bytes, and every beginning of them.
pub fn run(data: &[u8]) {
    let whole = read(data);
    let mut refused = false;
    for length in 0..data.len().min(MAX_HEAD + 64) {
        match read(&data[..length]) {
            Ok(None) => {
                assert!(!refused && length < MAX_HEAD, "waits for more of what it refused, or beyond the bound");
            }
            // What follows a whole head is early data: refused, not taken for part of it.
            Ok(Some(_)) => assert!(!refused && whole.is_err(), "{length} bytes were enough"),
            Err(error) => {
                refused = true;
                assert!(error.to_string().len() <= MAX_WORDS);
            }
        }
    }
    assert!(!refused || whole.is_err(), "refused first and accepted with more");
    let Ok(Some(request)) = whole else { return };
    let text = std::str::from_utf8(data).expect("ASCII");
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert!(text.starts_with("CONNECT ") && text.ends_with("\r\n\r\n") && data.len() <= MAX_HEAD);
    assert_eq!(lines.iter().filter(|line| line.is_empty()).count(), 2, "something follows the head");
    for line in &lines {
        assert!(line.bytes().all(|byte| byte == b'\t' || matches!(byte, b' '..=b'~')), "{line:?}");
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let body = matches!(name.trim(), "content-length" | "transfer-encoding");
        assert!(!body, "a body is announced to another reader: {line:?}");
        assert!(!line.starts_with([' ', '\t']), "goes on with the line before for another reader: {line:?}");
    }
    let hosts = lines.iter().filter(|line| line.to_ascii_lowercase().starts_with("host:")).count();
    assert_eq!(hosts, 1, "two readers may take another Host");
    let export = &request.export;
    let agreement = request.agreement.map(|digest| format!("Securelink-Agreement: {digest}\r\n")).unwrap_or_default();
    let plain = format!("CONNECT {export}:443 HTTP/1.1\r\nHost: {export}:443\r\n{agreement}\r\n");
    assert_eq!(read(plain.as_bytes()), Ok(Some(request)), "{plain}");
}
