//! Certificates for the plugin and its node agents: a small CA, kept in files, for installations without one.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use fiberlb_daemon::names::is_name;
use fiberlb_daemon::secrets;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use uuid::Uuid;

use super::identity::{NODE_URN, PLUGIN_URN};

/// Certificates are valid from this long ago, for machines whose clocks are behind.
const LEEWAY: Duration = Duration::from_secs(3600);
/// Longest validity: 100 years.
const MOST_DAYS: u32 = 36_525;

mod revocation;

/// Makes certificates for the plugins' listeners for node agents, and revokes them.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum AgentCaCommand {
    /// Make a CA (ca.pem, ca.key), its revocation list (crl.pem), and the plugin's certificate (server.pem, server.key) for these
    /// names
    Init {
        /// Directory for the five files; made where it is missing
        dir: PathBuf,
        /// DNS name or IP address that node agents and other plugins reach the plugin by; may be given several times
        #[arg(long = "name", value_name = "NAME", required = true)]
        names: Vec<String>,
        /// Days that the CA's certificate holds
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_DAYS)))]
        days: u32,
        /// Days that the plugin's certificate holds
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_DAYS)))]
        server_days: u32,
    },
    /// Make another certificate for the plugin (server.pem, server.key, ca.pem)
    Server {
        /// The CA that issues it.
        #[command(flatten)]
        ca: Ca,
        /// Directory for the three files; made where it is missing
        outdir: PathBuf,
        /// DNS name or IP address that node agents and other plugins reach the plugin by; may be given several times
        #[arg(long = "name", value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Make a certificate for the plugin's API, which is none of a plugin or node (server.pem, server.key, ca.pem)
    Api {
        /// The CA that issues it.
        #[command(flatten)]
        ca: Ca,
        /// Directory for the three files; made where it is missing
        outdir: PathBuf,
        /// DNS name or IP address that clients reach the API by; may be given several times
        #[arg(long = "name", value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Revoke certificates of nodes and plugins: add them to the CA's revocation list (crl.pem), for agents.client_crl; without a
    /// certificate only make the list
    Revoke {
        /// Directory with ca.pem and ca.key, and crl.pem once something was revoked
        #[arg(long = "ca", value_name = "DIR")]
        dir: PathBuf,
        /// Serial number in hexadecimal digits, with or without colons, of a certificate that is not at hand; may be given
        /// several times. The plugin logs it when a node connects.
        #[arg(long = "serial", value_name = "HEX")]
        serials: Vec<String>,
        /// PEM files with certificates of this CA
        certificates: Vec<PathBuf>,
    },
    /// Make a node's certificate (node.pem, node.key, ca.pem)
    Issue {
        /// The CA that issues it.
        #[command(flatten)]
        ca: Ca,
        /// The node's id: 1 to 64 letters, digits, '.', '_' or '-'
        node_id: String,
        /// Directory for the three files; made where it is missing
        outdir: PathBuf,
    },
}

/// The CA that issues, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Ca {
    /// Directory with ca.pem and ca.key
    #[arg(long = "ca", value_name = "DIR")]
    pub dir: PathBuf,
    /// Days that the certificate holds
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_DAYS)))]
    pub days: u32,
}

/// Failure to make certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Never overwritten.
    #[error("{} exists: remove it yourself if it can go, or give another directory", .0.display())]
    Exists(PathBuf),
    /// A file or directory.
    #[error("{}: {source}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// Cause, from the operating system.
        source: io::Error,
    },
    /// Not an id.
    #[error("the node id is {0:?}: give 1 to 64 letters, digits, '.', '_' or '-'")]
    NodeId(String),
    /// Neither a DNS name nor an address.
    #[error("the name {0:?} is neither a DNS name nor an IP address")]
    Name(String),
    /// The CA's files.
    #[error("{} cannot be used: {why}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// Reason.
        why: String,
    },
    /// Not a serial number.
    #[error("the serial number is {0:?}: give 1 to 20 bytes in hexadecimal digits")]
    Serial(String),
    /// A certificate that is not this CA's to revoke.
    #[error("{} was not issued by this CA", .0.display())]
    Foreign(PathBuf),
    /// The certificate could not be made.
    #[error("the certificate or list cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// A file that is to be written.
#[derive(Clone)]
struct NewFile {
    path: PathBuf,
    content: String,
    mode: u32,
}

/// A key and its certificate, in PEM.
struct Pair {
    key: String,
    certificate: String,
}

impl AgentCaCommand {
    /// Executes the command, and prints what was written to standard output.
    ///
    /// # Errors
    /// The obstacle. Then nothing was written.
    pub fn run(self) -> Result<(), CertificateError> {
        for path in self.write()? {
            println!("wrote {}", path.display());
        }
        Ok(())
    }

    fn write(self) -> Result<Vec<PathBuf>, CertificateError> {
        let (dir, files) = match self {
            Self::Init { dir, names, days, server_days } => {
                let (ca, issuer) = new_ca(days)?;
                let server = server(&issuer, &names, server_days)?;
                let list = public(&dir, revocation::LIST, revocation::empty(&issuer)?);
                let files = [pair(&dir, "ca", ca), vec![list], pair(&dir, "server", server)].concat();
                (dir, files)
            }
            Self::Server { ca, outdir, names } => {
                let (pem, issuer) = read_ca(&ca.dir)?;
                let server = server(&issuer, &names, ca.days)?;
                let files = [pair(&outdir, "server", server), vec![public(&outdir, "ca.pem", pem)]].concat();
                (outdir, files)
            }
            Self::Api { ca, outdir, names } => {
                let (pem, issuer) = read_ca(&ca.dir)?;
                let api = api(&issuer, &names, ca.days)?;
                let files = [pair(&outdir, "server", api), vec![public(&outdir, "ca.pem", pem)]].concat();
                (outdir, files)
            }
            Self::Revoke { dir, serials, certificates } => {
                return revocation::revoke(&dir, &serials, &certificates).map(|path| vec![path]);
            }
            Self::Issue { ca, node_id, outdir } => {
                let (pem, issuer) = read_ca(&ca.dir)?;
                let node = node(&issuer, &node_id, ca.days)?;
                let files = [pair(&outdir, "node", node), vec![public(&outdir, "ca.pem", pem)]].concat();
                (outdir, files)
            }
        };
        write_all(&dir, &files)?;
        Ok(files.into_iter().map(|file| file.path).collect())
    }
}

fn new_ca(days: u32) -> Result<(Pair, Issuer<'static, KeyPair>), CertificateError> {
    // The name is unique, so that two CAs are never taken for one another.
    let mut params = params(&format!("FiberLB agent CA {}", Uuid::new_v4()), days);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.pem();
    let pair = Pair { key: key.serialize_pem(), certificate };
    Ok((pair, Issuer::new(params, key)))
}

/// A plugin's certificate: it serves nodes and other plugins by its names, and may vouch for nodes to another
/// plugin.
fn server(issuer: &Issuer<'_, KeyPair>, names: &[String], days: u32) -> Result<Pair, CertificateError> {
    let mut params = params("FiberLB plugin", days);
    params.subject_alt_names = names.iter().map(|name| alternative_name(name)).collect::<Result<_, _>>()?;
    params.subject_alt_names.push(SanType::URI(PLUGIN_URN.try_into()?));
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    issue(issuer, params)
}

/// A certificate for the API: it serves clients by its names, and is nobody's identity.
fn api(issuer: &Issuer<'_, KeyPair>, names: &[String], days: u32) -> Result<Pair, CertificateError> {
    let mut params = params("FiberLB API", days);
    params.subject_alt_names = names.iter().map(|name| alternative_name(name)).collect::<Result<_, _>>()?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    issue(issuer, params)
}

fn alternative_name(text: &str) -> Result<SanType, CertificateError> {
    match text.parse() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => dns_name(text),
    }
}

fn dns_name(text: &str) -> Result<SanType, CertificateError> {
    let refused = || CertificateError::Name(text.to_owned());
    rustls_pki_types::DnsName::try_from(text).map_err(|_| refused())?;
    Ok(SanType::DnsName(text.try_into().map_err(|_| refused())?))
}

fn node(issuer: &Issuer<'_, KeyPair>, node_id: &str, days: u32) -> Result<Pair, CertificateError> {
    if !is_name(node_id) {
        return Err(CertificateError::NodeId(node_id.to_owned()));
    }
    let mut params = params(node_id, days);
    params.subject_alt_names = vec![SanType::URI(format!("{NODE_URN}{node_id}").try_into()?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    issue(issuer, params)
}

fn issue(issuer: &Issuer<'_, KeyPair>, mut params: CertificateParams) -> Result<Pair, CertificateError> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?.pem();
    Ok(Pair { key: key.serialize_pem(), certificate })
}

fn params(name: &str, days: u32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(LEEWAY);
    params.not_after = epoch + now + Duration::from_secs(u64::from(days.min(MOST_DAYS)) * 86_400);
    params
}

/// Reads the CA in a directory: its certificate in PEM, and its signer.
fn read_ca(dir: &Path) -> Result<(String, Issuer<'static, KeyPair>), CertificateError> {
    let (pem_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
    let unusable = |path: &Path, why: &dyn ToString| CertificateError::Ca {
        path: path.to_owned(),
        why: why.to_string(),
    };
    secrets::check_file(&key_path).map_err(failed(&key_path))?;
    let (pem, key) = (read(&pem_path)?, read(&key_path)?);
    let key = KeyPair::from_pem(&key).map_err(|error| unusable(&key_path, &error))?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| unusable(&pem_path, &error))?;
    let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|error| unusable(&pem_path, &error))?;
    // The anchor's lacks the outermost tag and length.
    if !key.subject_public_key_info().ends_with(&anchor.subject_public_key_info) {
        return Err(unusable(&key_path, &"it is not the key of ca.pem"));
    }
    let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| unusable(&pem_path, &error))?;
    Ok((pem, issuer))
}

fn read(path: &Path) -> Result<String, CertificateError> {
    std::fs::read_to_string(path).map_err(failed(path))
}

fn pair(dir: &Path, name: &str, pair: Pair) -> Vec<NewFile> {
    let key = NewFile { path: dir.join(format!("{name}.key")), content: pair.key, mode: 0o600 };
    vec![key, public(dir, &format!("{name}.pem"), pair.certificate)]
}

fn public(dir: &Path, name: &str, content: String) -> NewFile {
    NewFile { path: dir.join(name), content, mode: 0o644 }
}

/// Writes all the files, or none: existing files stay unchanged.
fn write_all(dir: &Path, files: &[NewFile]) -> Result<(), CertificateError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir))?;
    for (at, file) in files.iter().enumerate() {
        if let Err(error) = file.write() {
            for written in files.iter().take(at) {
                // The first error is the one to report.
                let _ = std::fs::remove_file(&written.path);
            }
            return Err(error);
        }
    }
    Ok(())
}

impl NewFile {
    fn write(&self) -> Result<(), CertificateError> {
        let mut file = match OpenOptions::new().write(true).create_new(true).mode(self.mode).open(&self.path)
        {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(CertificateError::Exists(self.path.clone()));
            }
            opened => opened.map_err(failed(&self.path))?,
        };
        let written = file.write_all(self.content.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(|error| {
            // A partial file would block the next attempt.
            let _ = std::fs::remove_file(&self.path);
            failed(&self.path)(error)
        })
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> CertificateError {
    let path = path.to_owned();
    move |source| CertificateError::Io { path, source }
}

#[cfg(test)]
mod tests;
