//! Expiry of the certificates in files, read by each scrape.

use std::fmt;
use std::path::PathBuf;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::tls::{self, Content};

/// Registers `certificate_expiry_timestamp_seconds` of PEM files, each with the key of its setting, which ends in `_ca` for a
/// file of CAs. Settings without a file have no series, and neither has a file without a certificate that can be read.
pub fn register_certificates(
    registry: &mut Registry,
    files: impl IntoIterator<Item = (&'static str, Option<PathBuf>)>,
) {
    let files = files.into_iter().filter_map(|(key, file)| Some((key, file?))).collect();
    registry.register_collector(Box::new(Certificates(files)));
}

#[derive(Debug)]
struct Certificates(Vec<(&'static str, PathBuf)>);

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Time since 1970 at which a certificate file expires, by the key of its setting";
        let (name, unit) = ("certificate_expiry_timestamp", Unit::Seconds);
        let mut family = encoder.encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
        for (key, path) in &self.0 {
            let content = if key.ends_with("_ca") { Content::Ca } else { Content::Chain };
            let Some(expiry) = tls::expiry(path, content) else { continue };
            let file = path.display().to_string();
            ConstGauge::new(expiry)
                .encode(family.encode_family(&[("key", *key), ("file", file.as_str())])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(until: i32) -> String {
        let mut params = CertificateParams::default();
        params.not_after = date_time_ymd(until, 2, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn the_first_of_a_chain_counts_the_last_of_cas_and_what_replaces_it_at_the_next_scrape() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.pem");
        let mut registry = Registry::with_prefix("x");
        let files = [
            ("a.tls_ca", Some(file.clone())),
            ("a.tls", Some(file.clone())),
            ("a.none", None),
            ("a.gone", Some("/nowhere".into())),
        ];
        register_certificates(&mut registry, files);
        let samples = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(samples(), Vec::<String>::new());
        std::fs::write(&file, certificate(2040) + &certificate(2030)).unwrap();
        let name = "x_certificate_expiry_timestamp_seconds";
        let sample = |key, expiry| format!("{name}{{key=\"{key}\",file=\"{}\"}} {expiry}", file.display());
        assert_eq!(samples(), [sample("a.tls_ca", 2_211_667_200_i64), sample("a.tls", 1_896_134_400)]);
        std::fs::write(&file, certificate(2031)).unwrap();
        assert_eq!(samples(), [sample("a.tls_ca", 1_927_670_400), sample("a.tls", 1_927_670_400)]);
    }
}
