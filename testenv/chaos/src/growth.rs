//! Growth of the resources that processes hold over a run: the first third against the last. Pure.

use std::collections::BTreeMap;

use fiberlb_lab::process::Usage;

/// So much more memory at the end is no growth, in parts of that at the beginning...
const MEMORY_PARTS: u64 = 2;
/// ... and in bytes: allocators keep what was needed at a peak.
const MEMORY_BYTES: u64 = 24 << 20;
/// So many more descriptors at the end are no growth: connections of a moment.
const DESCRIPTORS: u64 = 24;

/// Samples of the resources that processes hold, also across restarts.
#[derive(Clone, Debug, Default)]
pub struct Usages(BTreeMap<String, Vec<Usage>>);

impl Usages {
    /// Notes what a process holds now.
    pub fn note(&mut self, process: &str, usage: Usage) {
        self.0.entry(process.to_owned()).or_default().push(usage);
    }

    /// Descriptions of what grew.
    #[must_use]
    pub fn growth(&self) -> Vec<String> {
        self.0.iter().filter_map(|(process, usages)| growth(process, usages)).collect()
    }

    /// A line for each process.
    #[must_use]
    pub fn summary(&self) -> Vec<String> {
        let line = |(process, usages): (&String, &Vec<Usage>)| {
            let (early, late) = thirds(usages)?;
            let mib = |usage: Usage| usage.memory >> 20;
            let (before, after) = (early.descriptors, late.descriptors);
            Some(format!("{process}: {} to {} MiB, {before} to {after} descriptors", mib(early), mib(late)))
        };
        self.0.iter().filter_map(line).collect()
    }
}

fn growth(process: &str, usages: &[Usage]) -> Option<String> {
    let (early, late) = thirds(usages)?;
    if late.memory > early.memory + early.memory / MEMORY_PARTS + MEMORY_BYTES {
        return Some(format!("{process} grew from {} to {} bytes of memory", early.memory, late.memory));
    }
    (late.descriptors > early.descriptors + DESCRIPTORS)
        .then(|| format!("{process} grew from {} to {} descriptors", early.descriptors, late.descriptors))
}

/// The medians of the first third and of the last one.
fn thirds(usages: &[Usage]) -> Option<(Usage, Usage)> {
    let third = usages.len() / 3;
    let early = usages.get(..third)?;
    let late = usages.get(usages.len() - third..)?;
    Some((median(early)?, median(late)?))
}

fn median(usages: &[Usage]) -> Option<Usage> {
    let middle = |value: fn(&Usage) -> u64| {
        let mut values: Vec<u64> = usages.iter().map(value).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied()
    };
    Some(Usage { memory: middle(|it| it.memory)?, descriptors: middle(|it| it.descriptors)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usages(of: impl Fn(u64) -> (u64, u64)) -> Usages {
        let mut usages = Usages::default();
        for step in 0..90 {
            let (mib, descriptors) = of(step);
            usages.note("plugin0", Usage { memory: mib << 20, descriptors });
        }
        usages
    }

    #[test]
    fn a_leak_is_seen_and_a_peak_is_not() {
        assert_eq!(usages(|step| (30 + step % 7, 40 + step % 9)).growth(), Vec::<String>::new());
        assert_eq!(usages(|step| (30, if step == 80 { 900 } else { 40 })).growth(), Vec::<String>::new());
        assert!(usages(|step| (30 + step, 40)).growth()[0].contains("bytes of memory"));
        assert!(usages(|step| (30, 40 + step)).growth()[0].contains("descriptors"));
        assert_eq!(Usages::default().growth(), Vec::<String>::new());
    }
}
