//! A clustered northbound database: three servers, each in a network namespace of its own, joined by the underlay.
//!
//! Clients reach each by its unix socket, which no cut touches: what is cut is what members say to each other.

use std::time::Duration;

use crate::daemons::{Central, Member};
use crate::error::Result;
use crate::lab::Lab;
use crate::run::{self, run, until_async};

/// Longest wait for members to agree. An election takes one to two seconds, or some of them in a row.
const AGREEMENT: Duration = Duration::from_secs(30);
/// Longest wait for a member's answer: one that is frozen has none.
const ANSWER: Duration = Duration::from_secs(2);

impl Lab {
    /// The same with a northbound database of three servers ([`Member`]), which are one cluster when this
    /// returns.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub async fn start_clustered(name: &str) -> Result<Lab> {
        let lab = Self::empty(name).await?;
        lab.start_members().await?;
        lab.world().script("central.sh", &["sb", "northd"]).await?;
        lab.ready().await
    }

    /// The leader, once there is one. A frozen one cannot be asked; two may believe for a while that they lead, and
    /// the one of the later term is given.
    ///
    /// # Errors
    /// [`LabError::Timeout`](crate::LabError::Timeout) if nobody leads within 30 s.
    pub async fn nb_leader(&self) -> Result<Member> {
        self.leader_among(&Member::ALL).await
    }

    /// The leader, once it is another one than `old`.
    ///
    /// # Errors
    /// As [`Lab::nb_leader`].
    pub async fn next_nb_leader(&self, old: Member) -> Result<Member> {
        let others: Vec<Member> = Member::ALL.into_iter().filter(|member| *member != old).collect();
        self.leader_among(&others).await
    }

    async fn leader_among(&self, members: &[Member]) -> Result<Member> {
        until_async("a leader of the northbound database", AGREEMENT, async || {
            let mut leaders = Vec::new();
            for member in members {
                let status = self.member_status(*member).await;
                leaders.extend(status.filter(MemberStatus::leads).map(|status| (status.term, *member)));
            }
            leaders.into_iter().max().map(|(_, member)| member)
        })
        .await
    }

    /// Waits until a member is in the cluster and knows the leader.
    ///
    /// # Errors
    /// [`LabError::Timeout`](crate::LabError::Timeout) if that takes more than 30 s.
    pub async fn wait_for_member(&self, member: Member) -> Result<()> {
        let what = format!("{} in its cluster", member.name());
        until_async(&what, AGREEMENT, async || {
            self.member_status(member).await.filter(MemberStatus::is_joined).map(drop)
        })
        .await
    }

    /// Cuts a member off from the others. Its clients stay connected to it.
    ///
    /// # Errors
    /// [`LabError::Command`](crate::LabError::Command) if the lab has no such member.
    pub async fn cut_member(&self, member: Member) -> Result<()> {
        self.set_link(member, "down").await
    }

    /// Joins a member to the others again.
    ///
    /// # Errors
    /// [`LabError::Command`](crate::LabError::Command) if the lab has no such member.
    pub async fn heal_member(&self, member: Member) -> Result<()> {
        self.set_link(member, "up").await
    }

    async fn set_link(&self, member: Member, state: &str) -> Result<()> {
        let mut command = self.world().command(None, "ip");
        command.args(["link", "set", member.name(), state]);
        run(command, Duration::from_secs(10)).await.map(drop)
    }

    /// Status of a member; `None` if it does not answer.
    async fn member_status(&self, member: Member) -> Option<MemberStatus> {
        let control = self.world().path(&format!("/run/central/{}.ctl", member.name()));
        let mut command = run::command("ovs-appctl");
        command.arg(format!("--target={}", control.display()));
        command.args(["--timeout=1", "cluster/status", "OVN_Northbound"]);
        MemberStatus::parse(&run(command, ANSWER).await.ok()?)
    }

    /// Starts all members, and waits until all are in the cluster.
    async fn start_members(&self) -> Result<()> {
        for member in Member::ALL {
            self.restart(Central::Member(member)).await?;
            self.wait_for_member(member).await?;
        }
        Ok(())
    }
}

/// Output of `cluster/status`.
#[derive(Debug, PartialEq, Eq)]
struct MemberStatus {
    status: String,
    role: String,
    leader: String,
    term: u64,
}

impl MemberStatus {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
        };
        let term = field("Term:")?.parse().ok()?;
        Some(Self { status: field("Status:")?, role: field("Role:")?, leader: field("Leader:")?, term })
    }

    fn is_joined(&self) -> bool {
        self.status == "cluster member" && self.leader != "unknown"
    }

    fn leads(&self) -> bool {
        self.is_joined() && self.role == "leader"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_members_status_is_read() {
        let text = "c53f\nName: OVN_Northbound\nStatus: cluster member\nRole: leader\nTerm: 3\nLeader: self\nVote: self\n";
        let status = MemberStatus::parse(text).unwrap();
        assert!(status.leads() && status.term == 3);
        let alone = MemberStatus::parse(&text.replace("Leader: self", "Leader: unknown")).unwrap();
        assert!(!alone.leads() && !alone.is_joined());
        assert_eq!(MemberStatus::parse("no such database"), None);
    }
}
