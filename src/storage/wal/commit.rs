//! Group commit: many appends wait for one sync.

use crate::storage::batch::Appended;
use crate::storage::error::AppendError;

/// An append that is applied and written, and perhaps not yet synced.
pub struct Pending {}

impl Pending {
    /// Waits until the append is as durable as the fsync policy says, and tells what came of it.
    pub fn wait(self) -> Result<Appended, AppendError> {
        todo!()
    }

    /// Whether waiting would return at once.
    pub fn is_durable(&self) -> bool {
        todo!()
    }

    /// Calls `then` once with the outcome: at once if it is durable, else from the thread that syncs.
    pub fn on_durable(self, then: impl FnOnce(Result<Appended, AppendError>) + Send + 'static) {
        let _ = then;
        todo!()
    }
}
