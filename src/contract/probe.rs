//! What a ping without an answer says.

use std::time::Instant;

use crate::error::{Outage, Result};

use super::context::Context;
use super::ping::Ping;

/// Runs a ping. A probe may have little time: where half of it passed without an answer, that says what there is to know, though a call
/// would have waited for longer before it said anything of the server.
pub(crate) async fn as_probe(ping: impl Future<Output = Result<Ping>>, cx: &Context) -> Result<Ping> {
    let (began, patience) = (Instant::now(), cx.remaining() / 2);
    ping.await.map_err(|error| {
        let says_nothing = error.is_transient() && error.outage().is_none() && !error.is_full();
        if says_nothing && began.elapsed() >= patience { error.with_outage(Outage::Silent) } else { error }
    })
}
