//! What the sidecar and the broker are beside their work: programs that an operator runs.
//!
//! | module | holds |
//! |---|---|
//! | [`settings`] | settings in four layers, each value with where it came from |
//! | [`cli`] | exit codes, help, `--check` and `--print-config` |
//! | [`logging`], `line_limit` | the log, and how many lines of one kind it takes |
//! | [`metrics`] | names and labels of metrics |
//! | [`http`] | the listener for pages that people and monitors read |
//! | [`files`] | the limit on open files |
//! | [`reload`] | SIGHUP |
//! | [`listen`] | the addresses that it listens on |
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
