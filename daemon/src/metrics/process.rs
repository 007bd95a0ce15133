//! Metrics of this process, from `/proc`. One that cannot be read is left out.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use rustix::param::{clock_ticks_per_second, page_size};

use crate::descriptors;

/// Registers `process_…` and `fiberlb_build_info`.
pub(super) fn register(registry: &mut Registry, version: &'static str) {
    let started = Usage::read().zip(boot_time()).map(|(usage, boot)| boot + usage.started_after_boot);
    registry.register_collector(Box::new(Process { version, started }));
}

/// Collector of the process's metrics, run by each scrape.
#[derive(Debug)]
struct Process {
    version: &'static str,
    /// Seconds since 1970.
    started: Option<f64>,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let usage = Usage::read();
        if let Some(usage) = &usage {
            let help = "CPU time that the process has used, in user and kernel mode";
            let cpu = ConstCounter::new(usage.cpu);
            one(&mut encoder, "process_cpu", help, Some(&Unit::Seconds), &cpu)?;
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
        let gauges = [
            (
                "process_resident_memory",
                "Resident memory",
                Some(Unit::Bytes),
                usage.as_ref().map(|it| it.resident),
            ),
            (
                "process_virtual_memory",
                "Virtual memory",
                Some(Unit::Bytes),
                usage.as_ref().map(|it| it.virtual_),
            ),
            ("process_open_fds", "Open descriptors", None, open_descriptors().map(|count| count as f64)),
            ("process_max_fds", "Most descriptors that may be open", None, Some(descriptors::limit() as f64)),
            ("process_start_time", "Start of the process since 1970", Some(Unit::Seconds), self.started),
        ];
        for (name, help, unit, value) in gauges {
            let Some(value) = value else { continue };
            one(&mut encoder, name, help, unit.as_ref(), &ConstGauge::new(value))?;
        }
        let build = ConstGauge::new(1_i64);
        let help = "1, with the version of this program";
        let mut family = encoder.encode_descriptor("fiberlb_build_info", help, None, build.metric_type())?;
        build.encode(family.encode_family(&[("version", self.version)])?)
    }
}

fn one(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
}

/// Facts of `/proc/self/stat`.
#[derive(Clone, Debug, PartialEq)]
struct Usage {
    /// CPU time, in seconds.
    cpu: f64,
    /// Seconds from the machine's start to the process's.
    started_after_boot: f64,
    /// Bytes.
    virtual_: f64,
    /// Bytes.
    resident: f64,
}

impl Usage {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        #[expect(clippy::cast_precision_loss, reason = "both are small")]
        let (ticks, page) = (clock_ticks_per_second() as f64, page_size() as f64);
        Self::parse(&stat, ticks, page)
    }

    /// Parses the line of proc_pid_stat(5), with the kernel's ticks per second and bytes per page.
    fn parse(stat: &str, ticks: f64, page: f64) -> Option<Self> {
        // The second field, the name in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let field = |number: usize| -> Option<f64> { fields.get(number - 3)?.parse().ok() };
        Some(Self {
            cpu: (field(14)? + field(15)?) / ticks,
            started_after_boot: field(22)? / ticks,
            virtual_: field(23)?,
            resident: field(24)? * page,
        })
    }
}

/// Start of the machine, in seconds since 1970.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Number of open descriptors. The folder's size has it since Linux 6.2; before, its entries are counted.
fn open_descriptors() -> Option<u64> {
    let folder = "/proc/self/fd";
    match fs::metadata(folder).ok()?.len() {
        // Reading it opens one more.
        0 => Some((fs::read_dir(folder).ok()?.count() as u64).saturating_sub(1)),
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn fields_are_found_whatever_the_program_is_called() {
        let stat =
            "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 1 0 1000 8192 3 18446744073709551615";
        let expected = Usage { cpu: 2.0, started_after_boot: 10.0, virtual_: 8192.0, resident: 12_288.0 };
        assert_eq!(Usage::parse(stat, 100.0, 4096.0), Some(expected));
        assert_eq!(Usage::parse("7 (a) S 1", 100.0, 4096.0), None);
    }

    #[test]
    fn this_process_is_measured() {
        let usage = Usage::read().unwrap();
        assert!(
            usage.cpu >= 0.0 && usage.resident > 100_000.0 && usage.virtual_ >= usage.resident,
            "{usage:?}"
        );
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let started = boot_time().unwrap() + usage.started_after_boot;
        assert!(started < now + 2.0 && started > now - 3600.0, "{started} {now}");
        let before = open_descriptors().unwrap();
        let files: Vec<_> = (0..20).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        assert!(open_descriptors().unwrap() >= before.saturating_sub(10) + files.len() as u64);
    }
}
