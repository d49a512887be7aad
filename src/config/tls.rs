//! Encrypted connections: [`Tls`] and the files it may need, [`TlsFiles`].

use std::path::PathBuf;

use validator::Validate;

use super::rules;

/// Whether a connection is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tls {
    /// Plain text: for this machine, or a network that is trusted.
    #[default]
    Off,
    /// Encrypted, the server's certificate and host name checked.
    Verified(TlsFiles),
}

impl Tls {
    /// The files, if the connection is encrypted.
    #[must_use]
    pub const fn files(&self) -> Option<&TlsFiles> {
        match self {
            Self::Off => None,
            Self::Verified(files) => Some(files),
        }
    }
}

/// The files of an encrypted connection, each in PEM form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Validate)]
#[validate(schema(function = "rules::tls_files"))]
#[non_exhaustive]
pub struct TlsFiles {
    /// The authorities that may have signed the server's certificate; those of the operating system by default.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, where the server asks for one. Needs [`TlsFiles::key_file`].
    pub cert_file: Option<PathBuf>,
    /// The private key of our certificate.
    pub key_file: Option<PathBuf>,
}
