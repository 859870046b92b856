//! What an opener sends before the answer, kept for another connection. Bounded by what may be sent early; knows no
//! frames.

/// What an opener sent before the answer: kept until then, because a stream that was refused may be opened elsewhere.
#[derive(Default)]
pub(crate) struct Early {
    bytes: Vec<u8>,
    /// So many of them were sent on this connection.
    sent: usize,
}

impl Early {
    /// To be sent from the beginning, on another connection.
    pub(crate) fn again(mut self) -> Self {
        self.sent = 0;
        self
    }

    /// Whether nothing is left to be sent again.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Hands on what is still to be sent.
    pub(crate) fn resend(&mut self, buffer: &mut [u8]) -> usize {
        let left = self.bytes.get(self.sent..).unwrap_or_default();
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.sent += count;
        count
    }

    /// Keeps what was just sent.
    pub(crate) fn keep(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.sent = self.bytes.len();
    }
}
