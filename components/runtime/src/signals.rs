//! Termination signals: the first asks for an orderly end, the second ends at once.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code of a process that a second signal ended: 128 + SIGTERM.
const ENDED_BY_SIGNAL: i32 = 143;

/// Cancels `shutdown` on the first SIGTERM or SIGINT; on the second the process exits with code
/// 143 without waiting for anything. Nothing acknowledged is lost by that: it is in the log.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn cancel_on_signal(shutdown: CancellationToken) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let mut received = 0_u32;
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            received += 1;
            if received > 1 {
                tracing::warn!(signal = name, "second signal, exiting at once");
                std::process::exit(ENDED_BY_SIGNAL);
            }
            tracing::info!(signal = name, "shutting down");
            shutdown.cancel();
        }
    });
    Ok(())
}
