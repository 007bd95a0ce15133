//! Expiry of certificates.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{ASN1Time, CertificateRevocationList, FromDer as _, X509Certificate};

use super::files::{Files, Loaded, certificates, public, read};

/// Time before expiry from which on a certificate is reported.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// A certificate that has expired, or will soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// Expiry, for people, such as `Feb  1 00:00:00 2030 +00:00`.
    pub(super) until: String,
    pub(super) is_over: bool,
}

/// Content of a file, which says which of its certificates' expiries counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A certificate and its chain: it ends with the first of them.
    Chain,
    /// CAs, the old one beside the new one while they change: it ends with the last.
    Ca,
}

/// Expiry of what is in a file, in seconds since 1970; `None`: there is no certificate that can be read.
pub(crate) fn expiry(path: &Path, content: Content) -> Option<i64> {
    let certificates = certificates(path, &read(path, public).ok()?).ok()?;
    Some(end_of(&certificates, content)?.timestamp())
}

fn end_of(certificates: &[CertificateDer<'_>], content: Content) -> Option<ASN1Time> {
    let parsed = certificates.iter().filter_map(|der| X509Certificate::from_der(der).ok());
    let ends = parsed.map(|(_, certificate)| certificate.validity().not_after);
    match content {
        Content::Chain => ends.min(),
        Content::Ca => ends.max(),
    }
}

/// End of some certificates, if they have expired or will soon.
pub(super) fn ending(
    certificates: &[CertificateDer<'_>],
    content: Content,
    now: SystemTime,
) -> Option<Ending> {
    let until = end_of(certificates, content)?;
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let is_near = until.timestamp() <= seconds(now + SOON);
    is_near.then(|| Ending { until: until.to_string(), is_over: until.timestamp() < seconds(now) })
}

/// Fault of a file that has expired, for people.
pub(super) fn expired(path: &Path, certificates: &[CertificateDer<'_>], content: Content) -> Option<String> {
    let ending = ending(certificates, content, SystemTime::now()).filter(|ending| ending.is_over)?;
    Some(format!("{} has expired, on {}", path.display(), ending.until))
}

/// Logs each file that has expired, or will soon.
pub(super) fn warn(files: &Files, loaded: &Loaded) {
    let now = SystemTime::now();
    let all = [
        (Some(&files.certificate), &loaded.certificates, Content::Chain),
        (files.client_ca.as_ref(), &loaded.client_ca, Content::Ca),
    ];
    for (path, certificates, content) in all {
        if let (Some(path), Some(ending)) = (path, ending(certificates, content, now)) {
            log(path, &ending);
        }
    }
    if let Some(path) = &files.client_crl {
        warn_lists(path, loaded, now);
    }
}

/// Logs revocation lists of no use: those that are out of date, and those of other issuers.
fn warn_lists(path: &Path, loaded: &Loaded, now: SystemTime) {
    let file = path.display();
    let cas: Vec<_> =
        loaded.client_ca.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1)).collect();
    let parsed =
        loaded.client_crl.iter().filter_map(|der| Some(CertificateRevocationList::from_der(der).ok()?.1));
    for list in parsed {
        let issuer = list.issuer();
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let is_old = |at: &ASN1Time| at.timestamp() < i64::try_from(now).unwrap_or(i64::MAX);
        if let Some(until) = list.next_update().filter(is_old) {
            tracing::warn!(%file, %issuer, %until, "certificate revocation list is out of date; it stays in force: replace it");
        }
        if !cas.iter().any(|ca| ca.subject().as_raw() == issuer.as_raw()) {
            tracing::warn!(%file, %issuer, "certificate revocation list is of none of the CAs of nodes: it revokes nothing of theirs");
        }
    }
}

fn log(path: &Path, Ending { until, is_over }: &Ending) {
    let file = path.display();
    if *is_over {
        tracing::error!(%file, until, "certificate has expired, peers refuse it: replace the file, no restart is needed");
    } else {
        tracing::warn!(%file, until, "certificate expires soon: replace the file, no restart is needed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn until(year: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.not_after = date_time_ymd(year, 2, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn the_first_that_expires_is_reported_a_week_before() {
        let end = UNIX_EPOCH + Duration::from_secs(1_896_134_400); // 2030-02-01
        let day = Duration::from_secs(24 * 3600);
        let all = [until(2040), until(2030)];
        let is_over = |now| ending(&all, Content::Chain, now).map(|ending| ending.is_over);
        assert_eq!(is_over(end - 8 * day), None);
        assert_eq!(is_over(end - 6 * day), Some(false));
        assert_eq!(is_over(end + day), Some(true));
        assert!(ending(&all, Content::Chain, end).unwrap().until.contains("2030"));
        assert_eq!(ending(&[], Content::Chain, end), None);
    }

    #[test]
    fn an_old_ca_beside_the_new_one_is_no_fault() {
        let now = SystemTime::now();
        assert_eq!(ending(&[until(2020), until(2090)], Content::Ca, now), None);
        assert_eq!(expired(Path::new("ca.pem"), &[until(2020), until(2090)], Content::Ca), None);
        let fault = expired(Path::new("ca.pem"), &[until(2019), until(2020)], Content::Ca).unwrap();
        assert!(fault.contains("ca.pem has expired") && fault.contains("2020"), "{fault}");
    }
}
