//! Everything that the sidecar and the broker share as programs run by an operator.
//!
//! | module | holds |
//! |---|---|
//! | [`settings`] | settings in four layers, each value with its origin |
//! | [`cli`] | exit codes, help, `--check` and `--print-config` |
//! | [`logging`], `line_limit` | the log, and its limit on lines of one kind |
//! | [`metrics`] | names and labels of metrics |
//! | [`http`] | the listener for pages for people and monitors |
//! | [`files`] | the limit on open files |
//! | [`reload`] | SIGHUP |
//! | [`listen`] | the addresses on which a program listens |
//! | [`linger`] | the orderly end of a connection |

pub mod cli;
pub mod files;
pub mod http;
mod line_limit;
pub mod linger;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod reload;
pub mod settings;
