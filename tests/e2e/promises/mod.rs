//! The promises S1–S12 of the sidecar (proxy/README.md), tested byte by byte: a raw component on one side of the sidecar
//! and a scripted node on the other.
//!
//! | file | holds |
//! |---|---|
//! | [`scene`] | the sidecar and the node of a test, and what every test does with them |
//! | [`frames`] | S1, S2, S12: whole frames in both directions, in order |
//! | [`in_doubt`] | S3: publishes that a dead node did not confirm |
//! | [`journal`] | S4: replay of the subscriptions |
//! | [`answers`] | S5, S6: one PONG for each PING, one `+OK` for each command |
//! | [`info`] | S7, S11: INFO, CONNECT and credentials |
//! | [`keep_alive`] | S8: PINGs of the sidecar and of the node |
//! | [`errors`] | S9: which `-ERR` the component gets |
//! | [`outage`] | S10: no node can be reached |
//! | [`choice`] | the choice of a session's node |
//! | [`neighbours`] | a busy session does not delay the others |
//! | [`chains`] | sidecars in front of sidecars, also in a circle |
//! | [`components`] | components that are too many, too slow, or leave at once |

mod answers;
mod chains;
mod choice;
mod components;
mod errors;
mod frames;
mod in_doubt;
mod info;
mod journal;
mod keep_alive;
mod neighbours;
mod outage;
mod scene;
