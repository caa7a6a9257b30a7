//! The broker as a cluster: real processes that start, die, freeze and lose each other, and what their clients see of it.
//!
//! | file | the promise |
//! |---|---|
//! | [`crossing`], [`conversations`], [`split`] | a conversation over several nodes is as on one |
//! | [`queues`] | a queue group's message has one taker in the whole cluster |
//! | [`flush`] | after PONG every node knows what a client has subscribed to; a node that hangs holds nobody for long |
//! | [`moves`] | a client that moves between nodes gets nothing twice |
//! | [`zookeeper`] | a node is registered while it serves; the mesh lives without the registry |
//! | [`neighbours`] | what does not belong is refused, what is slow harms nobody |
//! | [`discovery`] | clients are told of the other nodes, and libraries move by themselves |
//! | [`partitions`] | what the network does to a cluster heals |
//! | [`crowd`] | what is gone is gone everywhere, and nothing is left behind |
//! | [`rolling`] | components behind sidecars do not notice that nodes are restarted |
//! | [`thaw`] | a node that was stopped for a while delivers nothing of those who gave it up |
//! | [`starting`] | a node serves nobody before it is synced |
//! | [`names`] | whose cluster a node is of, and which port is for whom |
//! | [`namesakes`] | of nodes of one name one serves |

mod conversations;
mod crossing;
mod crowd;
mod discovery;
mod flush;
mod moves;
mod names;
mod namesakes;
mod neighbours;
mod partitions;
mod queues;
mod rolling;
mod split;
mod starting;
mod thaw;
mod zookeeper;
