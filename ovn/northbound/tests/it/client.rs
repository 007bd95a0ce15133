//! Clients of the northbound database.

use fiberlb_northbound::{Change, Northbound};
use ovsdb::client::{Client, Config};

use fiberlb_ovn_testing::OWNER_KEY;

/// Events of a client.
pub(crate) type Events = fiberlb_ovn_testing::Events<Change>;

/// Starts a client and waits until it is live.
pub(crate) async fn connect(config: Config) -> (Client<Northbound>, Events) {
    fiberlb_ovn_testing::connect(config, Northbound::new(OWNER_KEY)).await
}
