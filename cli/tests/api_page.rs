//! `docs/api.md` has each field of the API's resources, and none that there is not.

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use fiberlb_proto::FILE_DESCRIPTOR_SET;
    use prost_reflect::DescriptorPool;

    const PAGE: &str = include_str!("../../docs/api.md");
    /// Messages whose fields the page must have; it may have more.
    const RESOURCES: [&str; 5] = ["LoadBalancer", "Listener", "Pool", "Backend", "HealthCheck"];

    /// The fields in the first column of each table of a page's section, by the heading above the table.
    fn tables(page: &str, section: &str) -> BTreeMap<String, Vec<String>> {
        let begin = page.lines().skip_while(|line| *line != format!("## {section}")).skip(1);
        let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut heading = String::new();
        for line in begin.take_while(|line| !line.starts_with("## ")) {
            if let Some(found) = line.strip_prefix("### ") {
                found.clone_into(&mut heading);
                tables.entry(heading.clone()).or_default();
            } else if let Some(cell) = line.strip_prefix("| `").and_then(|rest| rest.split(" | ").next()) {
                let names = cell.split(['`', ',', ' ']).filter(|name| !name.is_empty());
                tables.entry(heading.clone()).or_default().extend(names.map(str::to_owned));
            }
        }
        tables
    }

    #[test]
    fn each_field_stands_on_the_page_once_and_none_other() {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
        let tables = tables(PAGE, "Fields");
        for resource in RESOURCES {
            assert!(tables.contains_key(resource), "the page has no table of {resource}");
        }
        for (name, written) in tables {
            let message = pool.get_message_by_name(&format!("fiberlb.v1.{name}"));
            let message = message.unwrap_or_else(|| panic!("the API has no message {name}"));
            let fields: BTreeSet<String> = message.fields().map(|field| field.name().to_owned()).collect();
            let set: BTreeSet<String> = written.iter().cloned().collect();
            let missing: Vec<_> = fields.difference(&set).collect();
            let unknown: Vec<_> = set.difference(&fields).collect();
            assert!(
                missing.is_empty() && unknown.is_empty(),
                "{name}: missing {missing:?}, unknown {unknown:?}"
            );
            assert_eq!(written.len(), set.len(), "{name}: a field stands there twice");
        }
    }

    #[test]
    fn tables_are_read_as_they_are_written() {
        let page = "## A\n### X\n| `a` | 1 |\n## Fields\n### Pool\n| field | default |\n|---|---|\n| `b`, `c` | 2 `d` |\n## B\n| `e` |\n";
        assert_eq!(
            tables(page, "Fields"),
            BTreeMap::from([("Pool".to_owned(), vec!["b".to_owned(), "c".to_owned()])])
        );
    }
}
