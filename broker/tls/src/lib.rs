//! TLS for the sidecar and the broker.
//!
//! | module | holds |
//! |---|---|
//! | [`bounded_file`] | reads of files, with a limit on their size |
//! | [`files`] | the settings of one door: certificate, key, authorities, and how strict it is |
//! | [`certificate`] | what the programs read in a certificate: names, expiry |
//! | [`distinguished_name`] | the subject of a certificate, compared with the name of a user |
//! | [`acceptor`] | handshakes of connections that are accepted |
//! | [`dialler`] | handshakes of connections that are dialled |
//! | [`stream`] | a TCP connection, with or without TLS |
//!
//! *Architecture invariant:* this is the only crate of the two programs that names `rustls`, and it chooses the one provider of cryptography (`ring`).

pub mod acceptor;
pub mod bounded_file;
pub mod certificate;
pub mod dialler;
pub mod distinguished_name;
pub mod files;
pub mod stream;
#[cfg(test)]
mod tests;
