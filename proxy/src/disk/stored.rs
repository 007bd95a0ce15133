//! State that is kept on disk.

use std::collections::{BTreeSet, HashMap};

use fiberlb_proto::agent::v1;
use prost::Message;
use uuid::Uuid;

use crate::configuration::{Change, Configuration, IdError};
use crate::verdicts::KnownVerdict;

/// The file's content. Fields are only ever added.
#[derive(Clone, PartialEq, Message)]
pub struct Stored {
    /// Id of the installation.
    #[prost(string, tag = "1")]
    pub installation: String,
    /// The full configuration, without revision.
    #[prost(message, optional, tag = "2")]
    pub configuration: Option<v1::Update>,
    /// Verdicts on backends that are down.
    #[prost(message, repeated, tag = "3")]
    pub down: Vec<v1::Verdict>,
    /// Backends in probation that had no good probe yet.
    #[prost(string, repeated, tag = "4")]
    pub unproven: Vec<String>,
}

/// State of the agent that survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Id of the installation.
    pub installation: Uuid,
    /// Configuration of the node.
    pub configuration: Configuration,
    /// Verdicts on backends that are down.
    pub down: HashMap<Uuid, KnownVerdict>,
    /// Backends in probation that had no good probe yet.
    pub unproven: BTreeSet<Uuid>,
}

impl From<&Memory> for Stored {
    fn from(memory: &Memory) -> Self {
        let verdict = |(id, known): (&Uuid, &KnownVerdict)| v1::Verdict {
            backend_id: id.to_string(),
            up: known.up,
            reason: known.reason.clone(),
            since_ms: known.since_ms,
        };
        Self {
            installation: memory.installation.to_string(),
            configuration: Some(v1::Update::from(&memory.configuration)),
            down: memory.down.iter().map(verdict).collect(),
            unproven: memory.unproven.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<Stored> for Memory {
    type Error = IdError;

    /// Restores the state. A backend without a stored verdict was up, and counts as up again.
    fn try_from(stored: Stored) -> Result<Self, IdError> {
        let unproven: BTreeSet<Uuid> =
            stored.unproven.iter().map(|text| read("unproven", text)).collect::<Result<_, _>>()?;
        let mut update = stored.configuration.unwrap_or_default();
        for backend in update.pools.iter_mut().flat_map(|pool| &mut pool.backends) {
            backend.probation &= backend.id.parse().is_ok_and(|id| unproven.contains(&id));
        }
        let verdict = |wire: v1::Verdict| {
            let known = KnownVerdict { up: wire.up, reason: wire.reason, since_ms: wire.since_ms };
            Ok((read("down.backend_id", &wire.backend_id)?, known))
        };
        Ok(Self {
            installation: read("installation", &stored.installation)?,
            configuration: Configuration::default().changed(Change::try_from(update)?),
            down: stored.down.into_iter().map(verdict).collect::<Result<_, _>>()?,
            unproven,
        })
    }
}

fn read(field: &'static str, text: &str) -> Result<Uuid, IdError> {
    text.parse().map_err(|_| IdError { field, value: text.chars().take(80).collect() })
}
