//! Certificates of an authority that nobody else knows.

use std::path::{Path, PathBuf};

/// A folder with `ca.pem`, and `server.pem` and `client.pem` of that authority with their keys `server.key` and `client.key`. The
/// server is `localhost`.
pub struct Certificates(tempfile::TempDir);

impl Certificates {
    pub fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.distinguished_name.push(rcgen::DnType::CommonName, "authority");
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        write("ca.pem", authority.self_signed(&authority_key).unwrap().pem());
        let authority = rcgen::Issuer::new(authority, authority_key);
        for (name, host) in [("server", "localhost"), ("client", "client")] {
            let own_key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
            write(&format!("{name}.pem"), certificate.signed_by(&own_key, &authority).unwrap().pem());
            write(&format!("{name}.key"), own_key.serialize_pem());
        }
        Self(folder)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }
}
