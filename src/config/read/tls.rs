//! Encryption, as files write it: `true`, `false`, a mode, or a mapping with files.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::node::{Kind, Node};
use super::reader::{Field, Reader};
use super::section::section;
use super::value::{FilePath, Value, words};
use crate::config::postgres::{PostgresTls, TlsMode};
use crate::config::tls::{Tls, TlsFiles};

section! {
    /// The files of an encrypted connection, each in PEM form.
    TlsSection {
        /// The authorities that may have signed the server's certificate; by default those of the operating system.
        "ca" => ca: FilePath;
        /// Our certificate, where the server asks for one.
        "cert" => cert: FilePath;
        /// The private key of our certificate.
        "key" => key: FilePath;
    }
}

section! {
    /// What is demanded of the connection, and the files it may need, each in PEM form.
    PostgresTlsSection {
        /// What is demanded of the connection, in libpq's words. Only `verify-full` protects against somebody in between.
        "mode" => mode: TlsMode = "verify-full";
        /// The authorities that may have signed the server's certificate; by default those of the operating system.
        "ca" => ca: FilePath;
        /// Our certificate, where the server asks for one.
        "cert" => cert: FilePath;
        /// The private key of our certificate.
        "key" => key: FilePath;
        /// Another way to say the mode, as Node.js has it: `true` is `verify-full`, `false` is `require`.
        "rejectUnauthorized" => reject_unauthorized: bool;
    }
}

words!(TlsMode {
    "disable" => Disable,
    "prefer" => Prefer,
    "require" => Require,
    "verify-ca" => VerifyCa,
    "verify-full" => VerifyFull,
});

impl Value for Tls {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        if let Kind::Map(_) = node.kind {
            let section = TlsSection::read(node, reader)?;
            return Some(Self::Verified(files(section.ca, section.cert, section.key)));
        }
        if matches!(node.kind, Kind::List(_) | Kind::Integer(_) | Kind::Float) {
            reader.wrong_type(node, "`true`, `false` or a mapping with `ca`, `cert` and `key`");
            return None;
        }
        bool::read(node, reader).map(|on| if on { Self::Verified(TlsFiles::default()) } else { Self::Off })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [bool::schema(generator), TlsSection::schema(generator)] })
    }
}

impl Value for PostgresTls {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Map(_) => from_section(PostgresTlsSection::read(node, reader)?, reader),
            Kind::Text { text, .. } if !matches!(text.as_str(), "true" | "false") => {
                TlsMode::read(node, reader).map(Self::new)
            }
            Kind::List(_) | Kind::Integer(_) | Kind::Float => {
                reader.wrong_type(node, "`true`, `false`, a mode such as `verify-full`, or a mapping");
                None
            }
            _ => {
                let mode = |on| if on { TlsMode::VerifyFull } else { TlsMode::Disable };
                bool::read(node, reader).map(|on| Self::new(mode(on)))
            }
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let shapes = [bool::schema(generator), TlsMode::schema(generator), PostgresTlsSection::schema(generator)];
        json_schema!({ "anyOf": shapes })
    }
}

fn from_section(section: PostgresTlsSection, reader: &mut Reader<'_>) -> Option<PostgresTls> {
    let by_flag = section
        .reject_unauthorized
        .map(|field| field.map(|checked| if checked { TlsMode::VerifyFull } else { TlsMode::Require }));
    let mode = super::section::agree(section.mode, by_flag, reader);
    Some(PostgresTls {
        mode: mode.map_or(TlsMode::VerifyFull, |field| field.value),
        files: files(section.ca, section.cert, section.key),
    })
}

fn files(ca: Option<Field<FilePath>>, cert: Option<Field<FilePath>>, key: Option<Field<FilePath>>) -> TlsFiles {
    let path = |field: Option<Field<FilePath>>| field.map(|field| field.value.0);
    TlsFiles { ca_file: path(ca), cert_file: path(cert), key_file: path(key) }
}
