//! `kith demo`: three people, four devices and a relay at work, on this machine only.
//!
//! All run as separate processes on loopback in a temporary folder; they meet, write, leave and come
//! back, and every step is checked against what their own APIs say. Nothing is left behind: the
//! folder goes, and the processes end with this one.

mod circle;
mod process;
mod report;
mod story;

use crate::api::error::{ApiError, ErrorCode};

/// Runs the demo; an error if any check failed.
pub async fn run(json: bool) -> Result<(), ApiError> {
    let mut report = report::Report::new(json);
    let told = tokio::select! {
        told = story::tell(&mut report) => told,
        signal = tokio::signal::ctrl_c() => Err(ApiError::new(
            ErrorCode::Internal,
            match signal {
                Ok(()) => "the demo was interrupted".to_owned(),
                Err(error) => format!("cannot hear signals: {error}"),
            },
        )),
    };
    report.summary(told.is_ok());
    told
}
