//! Capabilities of the connected OVN: tables, columns and their values by the schema of its northbound database; options, which have
//! no columns of their own, by the release of the northd that reads them.

use super::AnswerForm;
use crate::{Northbound, version_numbers};
use ovsdb::schema::Schema;

/// Features that not every release of OVN has, each with its first release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// `Load_Balancer.selection_fields` (20.03).
    pub selection_fields: bool,
    /// `Load_Balancer_Group` (21.12), without which FiberLB does not work.
    pub groups: bool,
    /// `Load_Balancer.options:affinity_timeout`. (22.12).
    pub affinity: bool,
    /// `ipv6_src` and `ipv6_dst` in `selection_fields` (25.03).
    pub ipv6_selection: bool,
    /// `Load_Balancer.options:ct_flush` (23.06, and 23.03.1).
    pub flush: bool,
    /// `Logical_Switch_Port.options:disable_arp_nd_rsp` (24.09): a port without a type reserves an address and stays silent.
    pub silent_ports: bool,
}

/// Option of a map column, which every OVN stores and northd implements from a release on.
struct OptionSince {
    /// First release, as year and month.
    northd: (u32, u32),
    /// Version of the northbound schema in that release.
    schema: (u32, u32),
}

/// `Load_Balancer.options:affinity_timeout`.
const AFFINITY_TIMEOUT: OptionSince = OptionSince { northd: (22, 12), schema: (7, 0) };
/// `Load_Balancer.options:ct_flush`. 23.03.0, which lacks it, is not told from 23.03.1.
const CT_FLUSH: OptionSince = OptionSince { northd: (23, 3), schema: (7, 0) };
/// `Logical_Switch_Port.options:disable_arp_nd_rsp`.
const DISABLE_ARP_ND_RSP: OptionSince = OptionSince { northd: (24, 9), schema: (7, 6) };

impl Capabilities {
    /// All features.
    pub const ALL: Self = Self {
        selection_fields: true,
        groups: true,
        affinity: true,
        ipv6_selection: true,
        flush: true,
        silent_ports: true,
    };

    /// Capabilities of the OVN with this schema and content of the northbound database.
    #[must_use]
    pub fn of(schema: &Schema, nb: &Northbound) -> Self {
        Self {
            selection_fields: schema.has_column("Load_Balancer", "selection_fields"),
            groups: schema.has_column("Logical_Switch", "load_balancer_group"),
            affinity: AFFINITY_TIMEOUT.is_in(schema, nb),
            ipv6_selection: schema.allows("Load_Balancer", "selection_fields", "ipv6_src"),
            flush: CT_FLUSH.is_in(schema, nb),
            silent_ports: DISABLE_ARP_ND_RSP.is_in(schema, nb),
        }
    }

    /// Way in which responders answer for VIPs on this OVN: answer rows where a reservation is a cheap row too. Up to 23.06 they
    /// would not do: northd sends requests for the VIP to every router that has its row, whatever `neighbor_responder` says.
    #[must_use]
    pub fn answer_form(&self) -> AnswerForm {
        if self.silent_ports { AnswerForm::Rows } else { AnswerForm::Networks }
    }

    /// Consequences of missing features of this OVN, for people, where nothing else reports them: a request that needs a
    /// missing feature is refused by name.
    #[must_use]
    pub fn lacking(&self) -> Vec<&'static str> {
        let flush = "UDP flows stay with a backend that is gone until they end: ending them needs OVN 23.03.1 or later";
        [(self.flush, flush)].into_iter().filter(|(has, _)| !has).map(|(_, what)| what).collect()
    }
}

impl OptionSince {
    /// True if the connected OVN implements it: by the release of northd, or, if none has ever run, by the schema.
    fn is_in(&self, schema: &Schema, nb: &Northbound) -> bool {
        match nb.northd_release() {
            Some(release) => release >= self.northd,
            None => version_numbers(&schema.version).is_some_and(|version| version >= self.schema),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::NbGlobal;
    use ovsdb::replica::{Replica as _, RowChange, RowUpdate, TableRow as _};

    /// Capabilities by this schema and version of northd.
    fn capabilities(schema: &str, northd: Option<&str>) -> Capabilities {
        let schema = Schema::parse(&json!({"version": schema, "tables": {}})).unwrap();
        let mut nb = Northbound::new("owner");
        let options: Vec<_> =
            northd.map(|version| ["northd_internal_version", version]).into_iter().collect();
        let row = json!({"options": ["map", options]}).as_object().unwrap().clone();
        let uuid = uuid::Uuid::from_u128(1);
        nb.apply(vec![RowUpdate { table: NbGlobal::TABLE.to_owned(), uuid, change: RowChange::Insert(row) }])
            .unwrap();
        Capabilities::of(&schema, &nb)
    }

    #[test]
    fn an_option_is_known_by_the_northd_that_reads_it_and_else_by_the_schema() {
        for (schema, northd, has) in [
            ("7.0.0", None, true),
            ("6.3.0", None, false),
            ("7.18.0", Some("26.03.1-21.8.0-92.12"), true),
            ("7.0.0", Some("23.03.1-20.27.0-70.6"), true),
            ("7.0.0", Some("22.12.0-20.27.0-70.6"), true),
            // Databases are upgraded before northd is, and a northd of before may still run.
            ("7.0.0", Some("22.09.2-20.25.0-68.5"), false),
            ("6.3.0", Some("22.12.90-20.27.0-70.6"), true),
            // Not a version: as if there were none.
            ("7.0.0", Some("unknown"), true),
            ("7.0.0", Some("99999999999.1"), true),
            ("nonsense", Some(""), false),
        ] {
            assert_eq!(capabilities(schema, northd).affinity, has, "schema {schema}, northd {northd:?}");
        }
    }

    #[test]
    fn answer_rows_need_a_northd_that_reserves_addresses_in_silence() {
        for (schema, northd, form) in [
            ("7.11.0", Some("25.03.0-20.41.0-76.8"), AnswerForm::Rows),
            ("7.6.0", Some("24.09.0-20.37.0-74.3"), AnswerForm::Rows),
            ("7.6.0", None, AnswerForm::Rows),
            // The database is of the new release already, northd is not: it would have the port answer.
            ("7.11.0", Some("24.03.2-20.33.0-72.6"), AnswerForm::Networks),
            ("7.3.0", None, AnswerForm::Networks),
            ("7.0.0", Some("23.03.1-20.27.0-70.6"), AnswerForm::Networks),
        ] {
            assert_eq!(
                capabilities(schema, northd).answer_form(),
                form,
                "schema {schema}, northd {northd:?}"
            );
        }
    }

    #[test]
    fn what_is_lacking_is_said() {
        assert_eq!(Capabilities::ALL.lacking(), [""; 0]);
        let old = capabilities("6.3.0", Some("22.12.0-20.27.0-70.6")).lacking();
        assert!(old.len() == 1 && old[0].contains("23.03.1"), "{old:?}");
    }
}
