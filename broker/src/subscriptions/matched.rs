//! The subscriptions of one table that match a subject.

use std::sync::Arc;

use crate::name_index::NameIndex;
use crate::subscription::Subscription;

/// The subscriptions of one table that match a subject.
#[derive(Debug, Default)]
pub(crate) struct Matched {
    /// Subscriptions without a queue group. Each gets the message.
    pub(crate) each: Vec<Arc<Subscription>>,
    /// Members of each queue group. One of them gets the message.
    pub(crate) groups: Vec<Vec<Arc<Subscription>>>,
    /// Index of the groups by name.
    pub(crate) by_name: NameIndex,
}

impl Matched {
    /// Adds members of a queue group. Members that subscribed with different patterns belong to the same group.
    pub(crate) fn add_group(&mut self, name: &[u8], members: &[Arc<Subscription>]) {
        let Self { groups, by_name, .. } = self;
        match by_name.find(name, groups.len(), |at| name_of(&groups[at])) {
            Some(at) => groups[at].extend_from_slice(members),
            None => {
                groups.push(members.to_vec());
                by_name.pushed(groups.len(), |at| name_of(&groups[at]));
            }
        }
    }
}

/// Returns the name of the group of these members.
fn name_of(members: &[Arc<Subscription>]) -> &[u8] {
    members
        .first()
        .and_then(|member| member.queue())
        .unwrap_or_default()
}
