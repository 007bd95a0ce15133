//! The plugin's side of the streams to the node agents (`fiberlb.agent.v1`).
//!
//! [`Server`] listens; each stream gets a session, which speaks the [`protocol`] (a state machine without
//! IO), registers its node in the [`registry`], reports the node's messages to an [`Observer`], and brings
//! the node in step with the [`Configuration`] that the observer returned. The identity of a node comes from
//! its certificate, which [`certificates`] can issue.
//!
//! A follower redirects nodes to the leader ([`SessionRoute`]).
//!
//! It knows no load balancer and no placement: those are the observer's.

pub mod certificates;
mod changes;
mod identity;
mod input;
mod peer;
mod plugins;
mod protocol;
mod registry;
mod route;
mod server;
mod service;
mod session;
mod settings;

pub use changes::Configuration;
pub use identity::{ApiCertificateError, check_api_certificate};
pub use input::{
    AccessLogReport, Acknowledgement, Hello, NodeTrouble, ReportedConnection, ReportedDoubt, ReportedDrain,
    ReportedEjection, ReportedShare, ResultKind, TrafficReport, Verdict,
};
pub use peer::{PeerAddress, PeerAddressError};
pub use plugins::Plugins;
pub(crate) use protocol::MOST_READ;
pub use protocol::{Event, Protocol, ProtocolViolation, VERSION};
pub use registry::{Observer, Refusal};
pub use route::SessionRoute;
pub(crate) use server::tls_files;
pub use server::{Server, ServerError};
pub use settings::{Listen, Settings, SettingsError};
