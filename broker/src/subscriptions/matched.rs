//! The subscriptions that a subject matches.

use std::sync::Arc;

use crate::name_index::NameIndex;
use crate::subscription::Subscription;

/// Who gets a message, of the subscriptions of one kind.
#[derive(Debug, Default)]
pub(crate) struct Matched {
    /// Each of these.
    pub(crate) each: Vec<Arc<Subscription>>,
    /// One of each of these.
    pub(crate) groups: Vec<Vec<Arc<Subscription>>>,
    /// Where each group is, by its name.
    pub(crate) by_name: NameIndex,
}

impl Matched {
    /// Members of a group that subscribed with different patterns are one group all the same.
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

/// The name of the group that these are members of.
fn name_of(members: &[Arc<Subscription>]) -> &[u8] {
    members
        .first()
        .and_then(|member| member.queue())
        .unwrap_or_default()
}
