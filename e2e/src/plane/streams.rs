//! Bodies of answers: passed on as they come, later, or not to their end.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Any error of a body.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// Any body.
pub(super) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body that is all there.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The first half of a body; then the connection breaks.
pub(super) fn half(bytes: &Bytes) -> Body {
    let half = bytes.slice(..bytes.len() / 2);
    let broken = Err("cut in the middle by the test".into());
    StreamBody::new(stream::iter([Ok(Frame::data(half)), broken])).boxed_unsync()
}

/// A watch: each piece `delay` after it came, until `cut`.
pub(super) fn watched(body: kube::client::Body, delay: Duration, cut: CancellationToken) -> Body {
    let (sender, pieces) = mpsc::unbounded_channel();
    let arriving = cut.clone();
    tokio::spawn(async move {
        let mut arrives = BodyStream::new(body);
        loop {
            let piece = tokio::select! {
                () = arriving.cancelled() => return,
                () = sender.closed() => return,
                piece = arrives.next() => piece,
            };
            let Some(piece) = piece else { return };
            if sender.send((Instant::now() + delay, piece)).is_err() {
                return;
            }
        }
    });
    StreamBody::new(leaving(pieces, cut)).boxed_unsync()
}

type Piece = (Instant, Result<Frame<Bytes>, kube::Error>);

fn leaving(
    pieces: mpsc::UnboundedReceiver<Piece>,
    cut: CancellationToken,
) -> impl Stream<Item = Result<Frame<Bytes>, BodyError>> {
    stream::unfold((pieces, cut), |(mut pieces, cut)| async move {
        let next = async {
            let (due, piece) = pieces.recv().await?;
            tokio::time::sleep_until(due).await;
            Some(piece.map_err(BodyError::from))
        };
        let piece = tokio::select! {
            () = cut.cancelled() => None,
            piece = next => piece,
        };
        piece.map(|piece| (piece, (pieces, cut)))
    })
}
