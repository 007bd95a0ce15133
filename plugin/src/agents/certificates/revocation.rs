//! The CA's revocation list.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use webpki::{BorrowedCertRevocationList, CertRevocationList, EndEntityCert};

use super::{CertificateError, failed, read, read_ca};

/// Name of the list in the CA's directory.
pub(super) const LIST: &str = "crl.pem";
/// Time after which a list says that it is out of date; plugins go on with it, and say so in their logs.
const VALIDITY: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Most bytes of a serial number (RFC 5280).
const SERIAL_BYTES: usize = 20;

/// Serial numbers of revoked certificates, with the seconds since 1970 at which they were revoked.
type Revoked = BTreeMap<Vec<u8>, u64>;

/// Adds certificates to the list of the CA in a directory, and returns the list's path.
///
/// # Errors
/// The obstacle. Then the list is as it was.
pub(super) fn revoke(
    dir: &Path,
    serials: &[String],
    certificates: &[PathBuf],
) -> Result<PathBuf, CertificateError> {
    let (ca_pem, issuer) = read_ca(dir)?;
    let path = dir.join(LIST);
    let issuer_name = subject(&dir.join("ca.pem"), ca_pem.as_bytes())?;
    let mut revoked = if path.exists() { listed(&path, &issuer_name)? } else { Revoked::new() };
    let now = now();
    let given = serials.iter().map(|text| parse_serial(text));
    let of_files = certificates.iter().map(|file| serial_of(file, &issuer_name));
    for serial in given.chain(of_files) {
        revoked.entry(serial?).or_insert(now.as_secs());
    }
    replace(&path, &list(&issuer, revoked, now)?)?;
    Ok(path)
}

/// A list, in PEM, on which nothing is revoked.
pub(super) fn empty(issuer: &Issuer<'_, KeyPair>) -> Result<String, CertificateError> {
    list(issuer, Revoked::new(), now())
}

/// Time since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn list(issuer: &Issuer<'_, KeyPair>, revoked: Revoked, now: Duration) -> Result<String, CertificateError> {
    let epoch = date_time_ymd(1970, 1, 1);
    let entry = |(serial, at): (Vec<u8>, u64)| RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: epoch + Duration::from_secs(at),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: epoch + now,
        next_update: epoch + now + VALIDITY,
        // Larger than all before, as far as the clock is not set back.
        crl_number: SerialNumber::from(now.as_secs()),
        issuing_distribution_point: None,
        revoked_certs: revoked.into_iter().map(entry).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(params.signed_by(issuer)?.pem()?)
}

/// Content of a list that is there.
fn listed(path: &Path, issuer: &[u8]) -> Result<Revoked, CertificateError> {
    let unusable = |why: String| CertificateError::Ca { path: path.to_owned(), why };
    let pem = read(path)?;
    let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes());
    let der = der.map_err(|error| unusable(error.to_string()))?;
    let list = BorrowedCertRevocationList::from_der(&der).map_err(|error| unusable(error.to_string()))?;
    let mut revoked = Revoked::new();
    for entry in &list {
        let entry = entry.map_err(|error| unusable(error.to_string()))?;
        revoked.insert(entry.serial_number.to_owned(), entry.revocation_date.as_secs());
    }
    if CertRevocationList::from(list).issuer() != issuer {
        return Err(unusable("it is the list of another CA".to_owned()));
    }
    Ok(revoked)
}

fn subject(path: &Path, pem: &[u8]) -> Result<Vec<u8>, CertificateError> {
    let unusable = |why: String| CertificateError::Ca { path: path.to_owned(), why };
    let der = CertificateDer::from_pem_slice(pem).map_err(|error| unusable(error.to_string()))?;
    let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|error| unusable(error.to_string()))?;
    Ok(anchor.subject.as_ref().to_vec())
}

/// Serial number of a certificate that the CA has issued.
fn serial_of(path: &Path, issuer: &[u8]) -> Result<Vec<u8>, CertificateError> {
    let unusable = |why: String| CertificateError::Ca { path: path.to_owned(), why };
    let pem = read(path)?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| unusable(error.to_string()))?;
    let certificate = EndEntityCert::try_from(&der).map_err(|error| unusable(error.to_string()))?;
    if certificate.issuer() != issuer {
        return Err(CertificateError::Foreign(path.to_owned()));
    }
    Ok(certificate.serial().to_vec())
}

/// Reads a serial number as it stands in a certificate: without the zero byte that keeps it positive it is the same.
fn parse_serial(text: &str) -> Result<Vec<u8>, CertificateError> {
    let refused = || CertificateError::Serial(text.to_owned());
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    if digits.is_empty() || digits.len() % 2 == 1 || digits.len() > 2 * (SERIAL_BYTES + 1) {
        return Err(refused());
    }
    let byte = |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..digits.len()).step_by(2).map(|at| byte(at).ok_or_else(refused)).collect()
}

/// Replaces the list: plugins that read it at any moment find the old or the new one.
fn replace(path: &Path, pem: &str) -> Result<(), CertificateError> {
    let new = path.with_extension("pem.new");
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(pem.as_bytes())?;
        file.sync_all()
    });
    written.map_err(failed(&new))?;
    std::fs::rename(&new, path).map_err(failed(path))?;
    let directory = path.parent().map(File::open).transpose();
    directory.and_then(|directory| directory.map_or(Ok(()), |it| it.sync_all())).map_err(failed(path))
}
