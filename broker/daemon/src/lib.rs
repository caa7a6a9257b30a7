//! Settings, log, metrics, HTTP listener and sockets of a program, shared by the sidecar and the broker.
//!
//! | module | holds |
//! |---|---|
//! | [`settings`] | settings in four layers, each value with its place |
//! | [`cli`] | exit codes, help, `--check` and `--print-config` |
//! | [`logging`], `line_limit` | the log, and the limit on lines per second |
//! | [`metrics`] | names, help texts and labels of metrics |
//! | [`process_usage`] | memory, CPU time and files of the process, also as metrics |
//! | [`http`] | the HTTP listener for operators and monitoring |
//! | [`connection_limit`] | the limit on open files |
//! | [`admission`], [`half_open`], `address_counts` | the limits on connections before login |
//! | [`reload`] | SIGHUP |
//! | [`listen`] | the addresses on which a program listens |
//! | [`unix_socket`] | a Unix socket on which a program listens, and its file |
//! | [`tcp`] | the options of a connection that carries messages |
//! | [`tls`] | `[tls.…]`, the TLS settings of one door: one kind of connection, such as those of clients |
//! | [`own_credentials`] | the credentials that a program shows to nodes |
//! | [`certificate_watch`] | certificate files that change or expire |
//! | [`inherited_sockets`] | sockets that the service manager keeps open while the program restarts |
//! | [`successor`], [`handover_file`], [`descriptors`] | the program that replaces the running one: its check, its state, its sockets |
//! | [`service_manager`] | messages to the service manager: ready, reloading, stopping, alive |
//! | [`linger`] | the orderly close of a connection |
//! | [`doctor`] | the checks of `doctor` |
//! | [`page_client`] | a client of the HTTP pages, for commands |
//! | [`live_view`], [`table`], [`terminal`] | what commands show in a terminal |

mod address_counts;
pub mod admission;
pub mod certificate_watch;
pub mod cli;
pub mod connection_limit;
pub mod descriptors;
pub mod doctor;
pub mod half_open;
pub mod handover_file;
pub mod http;
pub mod inherited_sockets;
mod line_limit;
pub mod linger;
pub mod listen;
pub mod live_view;
pub mod logging;
pub mod metrics;
pub mod own_credentials;
pub mod page_client;
pub mod process_usage;
pub mod reload;
pub mod service_manager;
pub mod settings;
pub mod successor;
pub mod table;
pub mod tcp;
pub mod terminal;
pub mod tls;
pub mod unix_socket;
