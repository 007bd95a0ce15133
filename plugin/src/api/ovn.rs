//! The comparison with OVN's northbound database, for operators.

use std::sync::Arc;

use fiberlb_proto::v1;
use tonic::Status;

use super::Api;
use super::peers::{Client, question};
use crate::reconcile::{Difference, DifferenceKind, Planner, Subject};

/// Most differences in an answer.
const MOST: usize = 1000;

impl Api {
    /// Compares the northbound database with the desired state.
    pub(super) async fn verify_ovn(&self) -> Result<v1::VerifyOvnResponse, Status> {
        let Some(leader) = self.leader()? else { return self.verify_ovn_here().await };
        let ask =
            |mut client: Client| async move { client.verify_ovn(question(v1::VerifyOvnRequest {})).await };
        self.0.plugins.ask(&leader, ask).await
    }

    /// As [`Self::verify_ovn`], on the leader.
    pub(super) async fn verify_ovn_here(&self) -> Result<v1::VerifyOvnResponse, Status> {
        let busy =
            || Status::resource_exhausted("another comparison is under way: try again when it is done");
        let turn = Arc::clone(&self.0.verifications).try_acquire_owned().map_err(|_| busy())?;
        let northbound = &self.0.northbound;
        let status = northbound.status().borrow().to_string();
        if !northbound.is_live() {
            return Err(Status::unavailable(format!("the northbound database is not connected: {status}")));
        }
        let planner = Planner {
            installation: self.0.installation,
            model: self.0.model.clone(),
            northbound: northbound.clone(),
            fleet: self.0.roles.fleet(),
        };
        // Takes seconds with very many load balancers, and must not block the runtime.
        let compared = tokio::task::spawn_blocking(move || (planner.verify(), turn)).await;
        let (differences, _turn) = compared.map_err(|error| Status::internal(error.to_string()))?;
        Ok(v1::VerifyOvnResponse {
            differences: differences.found.iter().take(MOST).map(render).collect(),
            total: count(differences.found.len()),
            load_balancers: count(differences.load_balancers),
            waiting: u32::try_from(self.0.metrics.queue_length.get()).unwrap_or_default(),
            northbound: status,
        })
    }
}

fn render(difference: &Difference) -> v1::OvnDifference {
    let kind = match difference.kind {
        DifferenceKind::Missing => v1::OvnDifferenceKind::Missing,
        DifferenceKind::Unexpected => v1::OvnDifferenceKind::Unexpected,
        DifferenceKind::Different => v1::OvnDifferenceKind::Different,
        DifferenceKind::Blocked => v1::OvnDifferenceKind::Blocked,
    };
    let (load_balancer_id, network) = match difference.subject {
        Subject::LoadBalancer(id) => (id.to_string(), String::new()),
        Subject::Network(switch) => (String::new(), switch.to_string()),
    };
    v1::OvnDifference {
        kind: kind.into(),
        table: difference.table.to_owned(),
        row: difference.row.to_string(),
        load_balancer_id,
        network,
        detail: difference.detail.clone(),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
