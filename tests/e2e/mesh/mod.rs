//! The broker as a cluster: real processes that start, die, freeze and lose each other, and the effect on their clients.
//!
//! | file | the promise |
//! |---|---|
//! | [`crossing`], [`conversations`], [`split`] | a conversation over several nodes is the same as on one |
//! | [`queues`] | each message for a queue group is delivered to one member in the whole cluster |
//! | [`flush`] | after PONG every node has the client's interest; a hanging node delays a PONG only up to the flush timeout |
//! | [`moves`] | a client that moves between nodes gets no message twice |
//! | [`zookeeper`] | a node is registered while it serves; the mesh works while ZooKeeper is down |
//! | [`neighbours`] | connections that do not belong to the mesh are refused; slow nodes do not harm the others |
//! | [`discovery`] | INFO lists the other nodes, and client libraries move to them |
//! | [`partitions`] | the mesh recovers from partitions, delay and loss |
//! | [`crowd`] | the interest of a dead node disappears everywhere, and nothing leaks |
//! | [`rolling`], [`rolling_clients`] | components behind sidecars do not notice that nodes are restarted |
//! | [`thaw`] | a node that was frozen delivers no message of a sender that has given it up |
//! | [`starting`] | a node accepts clients only after it has the interest of the others |
//! | [`names`] | cluster names, clients at the port for nodes, and INFO after the last peer died |
//! | [`namesakes`] | of the nodes with the same name, only one serves |

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
mod rolling_clients;
mod split;
mod starting;
mod thaw;
mod zookeeper;
