//! Bodies without an end that is known: what comes is sent as it comes.

use bytes::Bytes;
use smol::lock::Mutex;
use smol::stream::{Boxed, Stream, StreamExt as _};
use std::fmt;
use std::sync::Arc;

/// One such body. It ends with what it is made of, or when its client goes.
#[derive(Clone)]
pub struct StreamBody(Arc<Mutex<Boxed<Bytes>>>);

impl StreamBody {
    /// A body of these pieces.
    pub fn new(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(pieces.boxed())))
    }

    /// The next piece; `None` at the end.
    pub async fn next(&self) -> Option<Bytes> {
        self.0.lock().await.next().await
    }
}

impl PartialEq for StreamBody {
    /// Whether it is the same one.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for StreamBody {}

impl fmt::Debug for StreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamBody")
    }
}
