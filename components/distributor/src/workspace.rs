//! The working memory of one request, reused from request to request.

use parking_lot::Mutex;

use crate::{decompress::Decompressor, regroup::Scratch};

/// Most working memory that is kept for the next request, in bytes. What one outsized request
/// needed is given back.
const MAX_KEPT_BYTES: usize = 8 << 20;

/// Most idle working memories kept; more only exist while more requests are at work at once.
const MAX_IDLE: usize = 32;

/// What preparing a request needs.
#[derive(Default)]
pub(crate) struct Workspace {
    pub(crate) decompressor: Decompressor,
    pub(crate) decompressed: Vec<u8>,
    /// The OTLP protobuf form of a request that is something else.
    pub(crate) transcoded: Vec<u8>,
    pub(crate) scratch: Scratch,
}

impl Workspace {
    fn kept_bytes(&self) -> usize {
        self.decompressor.kept_bytes()
            + self.decompressed.capacity()
            + self.transcoded.capacity()
            + self.scratch.capacity_bytes()
    }
}

/// The idle working memories of a process.
#[derive(Default)]
pub(crate) struct Workspaces {
    idle: Mutex<Vec<Workspace>>,
}

impl Workspaces {
    /// Runs `work` with a working memory of its own.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Workspace) -> T) -> T {
        let mut workspace = self.idle.lock().pop().unwrap_or_default();
        let done = work(&mut workspace);
        if workspace.kept_bytes() <= MAX_KEPT_BYTES {
            let mut idle = self.idle.lock();
            if idle.len() < MAX_IDLE {
                idle.push(workspace);
            }
        }
        done
    }
}
