//! The promises S1–S10 and S12 of DESIGN.md, byte by byte: a raw component on one side of the sidecar, a scripted node
//! on the other, and nothing between them that rounds anything off.
//!
//! | file | holds |
//! |---|---|
//! | [`scene`] | the sidecar of a test, and what every test does with it |
//! | [`frames`] | S1, S2, S12: whole frames both ways, in order |
//! | [`in_doubt`] | S3: what becomes of unconfirmed publishes |
//! | [`journal`] | S4: what is replayed |
//! | [`answers`] | S5, S6: PONG and `+OK`, one for each |
//! | [`face`] | S7, S8: what the component sees of the cluster, and of keep-alive |
//! | [`errors`] | S9: whose `-ERR` it is |
//! | [`outage`] | S10: no node at all |
//! | [`choice`] | which node a session gets |
//! | [`neighbours`] | what one session's component or node does to the other sessions |
//! | [`chains`] | sidecars one behind the other, or in a circle |
//! | [`components`] | components that are too many, too slow, or gone at once |

mod answers;
mod chains;
mod choice;
mod components;
mod errors;
mod face;
mod frames;
mod in_doubt;
mod journal;
mod neighbours;
mod outage;
mod scene;
