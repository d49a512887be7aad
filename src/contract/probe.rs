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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Error;

    /// What a ping says that fails after so long, of the 40 ms that it has.
    async fn told(error: Error, after: Duration) -> Option<Outage> {
        let failing = async {
            tokio::time::sleep(after).await;
            Err(error)
        };
        as_probe(failing, &Context::with_timeout(Duration::from_millis(40))).await.unwrap_err().outage()
    }

    #[tokio::test]
    async fn who_waited_for_half_of_a_short_time_found_silence() {
        let (soon, late) = (Duration::ZERO, Duration::from_millis(30));
        let vain = || Error::unavailable("no answer before the deadline");
        assert_eq!(told(vain(), late).await, Some(Outage::Silent));
        assert_eq!(told(vain(), soon).await, None);
        assert_eq!(told(vain().full(), late).await, None, "it answered");
        assert_eq!(told(vain().permanent(), late).await, None, "it answered");
        assert_eq!(told(vain().with_outage(Outage::Down), late).await, Some(Outage::Down));
    }
}
