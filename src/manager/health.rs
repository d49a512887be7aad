//! How the storage is: [`Health`].

use std::time::Duration;

use crate::chain::{ChainState, ChainStatus};
use crate::contract::{Capabilities, Context, Store};
use crate::error::Error;
use crate::layer::Side;

/// The latency from which a store that answers is called degraded. A call to a store on the same network takes a few
/// milliseconds; one that takes this long will soon miss the deadlines of its callers.
const SLOW: Duration = Duration::from_secs(1);

/// How well something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum HealthStatus {
    /// It can be read and written.
    Healthy,
    /// It works, but slowly (an answer took over a second), or only in part.
    Degraded,
    /// It cannot be used.
    Unhealthy,
}

impl HealthStatus {
    /// The name in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How cache and database are.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Health {
    /// The cache.
    pub cache: SideHealth,
    /// The database.
    pub database: SideHealth,
}

impl Health {
    /// The worse of the two.
    #[must_use]
    pub fn status(&self) -> HealthStatus {
        self.cache.status().max(self.database.status())
    }
}

/// How one side is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SideHealth {
    /// Which side it is.
    pub side: Side,
    /// The stores of the side, the primary first.
    pub members: Vec<MemberHealth>,
    /// How the chain behind the primary is, if there is one.
    pub chain: Option<ChainStatus>,
}

impl SideHealth {
    pub(super) fn of(side: Side, member: MemberHealth, chain: Option<ChainStatus>) -> Self {
        Self { side, members: vec![member], chain }
    }

    /// How the side is, as its callers feel it: as its primary is. With a chain behind it, it is degraded while the primary is away
    /// or owed something, and unhealthy only if nothing can be written any more.
    #[must_use]
    pub fn status(&self) -> HealthStatus {
        let primary = self.members.first().map_or(HealthStatus::Unhealthy, |primary| primary.status);
        let Some(chain) = &self.chain else { return primary };
        match (chain.state, primary) {
            (ChainState::Normal, HealthStatus::Healthy)
                if chain.parked == 0 && !chain.journal_full && chain.left_journals.is_empty() =>
            {
                primary
            }
            (ChainState::Degraded, _) if chain.journal_full => HealthStatus::Unhealthy,
            _ => HealthStatus::Degraded,
        }
    }
}

/// How one store is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MemberHealth {
    /// The backend's name.
    pub backend: &'static str,
    /// How well it works.
    pub status: HealthStatus,
    /// How long a write took, if it succeeded.
    pub latency: Option<Duration>,
    /// The server's or library's version, if it was told.
    pub server_version: Option<String>,
    /// What the backend can do, if it could be made.
    pub capabilities: Option<Capabilities>,
    /// Why it is not healthy.
    pub error: Option<Error>,
}

impl MemberHealth {
    /// Asks a store.
    pub(super) async fn ask<B: Store + ?Sized>(store: &B, cx: &Context) -> Self {
        let capabilities = store.capabilities();
        let backend = capabilities.backend;
        match store.ping(cx).await {
            Ok(ping) => Self {
                backend,
                status: if ping.latency > SLOW { HealthStatus::Degraded } else { HealthStatus::Healthy },
                latency: Some(ping.latency),
                server_version: ping.server_version,
                capabilities: Some(capabilities),
                error: None,
            },
            Err(error) => Self { capabilities: Some(capabilities), ..Self::failed(backend, error) },
        }
    }

    /// A store that could not even be made.
    pub(super) const fn failed(backend: &'static str, error: Error) -> Self {
        Self {
            backend,
            status: HealthStatus::Unhealthy,
            latency: None,
            server_version: None,
            capabilities: None,
            error: Some(error),
        }
    }
}
