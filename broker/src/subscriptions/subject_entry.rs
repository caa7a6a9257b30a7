//! The subscriptions to one subject: those without a queue group, and the queue groups.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::matched::Matched;
use crate::name_index::NameIndex;
use crate::subscription::Subscription;

/// Effect of a change on the announced interest. For one subject, all subscriptions without a queue group are announced
/// as one, and the members of each queue group as one with the size of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    /// No effect.
    None,
    /// The first subscription or member was added.
    First,
    /// The last subscription or member was removed.
    Last,
    /// The queue group now has this number of [counted](Subscription::is_counted) members.
    Members(u32),
}

/// The subscriptions to one subject. Most subjects have one subscription, which is stored without a list.
#[derive(Debug)]
pub(super) enum SubjectEntry {
    One(Arc<Subscription>),
    Many(Box<Many>),
}

#[derive(Debug, Default)]
pub(super) struct Many {
    each: Vec<Arc<Subscription>>,
    groups: Vec<GroupEntry>,
    by_name: NameIndex,
}

#[derive(Debug)]
struct GroupEntry {
    name: Box<[u8]>,
    members: Vec<Arc<Subscription>>,
    /// Number of members that are counted.
    counted: u32,
}

impl SubjectEntry {
    pub(super) fn subject(&self) -> &[u8] {
        match self {
            Self::One(one) => one.subject(),
            Self::Many(many) => many.first().map_or(&[], |first| first.subject()),
        }
    }

    pub(super) fn add(&mut self, subscription: Arc<Subscription>) -> Edge {
        if let Self::One(one) = self {
            let mut many = Box::<Many>::default();
            many.add(Arc::clone(one));
            *self = Self::Many(many);
        }
        match self {
            Self::Many(many) => many.add(subscription),
            Self::One(_) => Edge::First,
        }
    }

    /// Removes a subscription. Returns the effect, or `None` if the subscription was not there.
    pub(super) fn remove(&mut self, subscription: &Arc<Subscription>) -> Option<Edge> {
        match self {
            Self::One(one) => Arc::ptr_eq(one, subscription).then_some(Edge::Last),
            Self::Many(many) => many.remove(subscription),
        }
    }

    /// Counts a member of a queue group that was not counted. Returns the effect.
    pub(super) fn count(&mut self, member: &Arc<Subscription>) -> Edge {
        let name = member.queue().unwrap_or_default();
        if member.is_counted() {
            return Edge::None;
        }
        match self {
            Self::One(one) if Arc::ptr_eq(one, member) => {
                member.set_counted(true);
                Edge::Members(1)
            }
            Self::Many(many) => {
                let Some(at) = many.group_index(name) else {
                    return Edge::None;
                };
                let group = &mut many.groups[at];
                if !is_at_its_place(&group.members, member) {
                    return Edge::None;
                }
                member.set_counted(true);
                group.counted += 1;
                Edge::Members(group.counted)
            }
            Self::One(_) => Edge::None,
        }
    }

    /// Returns whether no subscription is left after a removal with the effect `edge`.
    pub(super) fn is_empty(&self, edge: Edge) -> bool {
        match self {
            Self::One(_) => edge == Edge::Last,
            Self::Many(many) => many.first().is_none(),
        }
    }

    /// Calls `each` for the interest to be announced: one subscription without a group, and one member of each group with the size of the
    /// group.
    pub(super) fn interest(&self, mut each: impl FnMut(&Arc<Subscription>, u32)) {
        match self {
            Self::One(one) => each(one, one.is_counted().into()),
            Self::Many(many) => {
                if let Some(first) = many.each.first() {
                    each(first, 1);
                }
                for group in &many.groups {
                    if let Some(first) = group.members.first() {
                        each(first, group.counted);
                    }
                }
            }
        }
    }

    /// Returns all subscriptions.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Subscription>> {
        let (one, many) = match self {
            Self::One(one) => (Some(one), None),
            Self::Many(many) => (None, Some(many)),
        };
        one.into_iter().chain(many.into_iter().flat_map(|many| {
            let in_groups = many.groups.iter().flat_map(|group| &group.members);
            many.each.iter().chain(in_groups)
        }))
    }

    pub(super) fn collect(&self, matched: &mut Matched) {
        match self {
            Self::One(one) => match one.queue() {
                Some(name) => matched.add_group(name, std::slice::from_ref(one)),
                None => matched.each.push(Arc::clone(one)),
            },
            Self::Many(many) => {
                matched.each.extend_from_slice(&many.each);
                for group in &many.groups {
                    matched.add_group(&group.name, &group.members);
                }
            }
        }
    }
}

impl Many {
    fn first(&self) -> Option<&Arc<Subscription>> {
        let in_groups = || self.groups.first().and_then(|group| group.members.first());
        self.each.first().or_else(in_groups)
    }

    fn group_index(&self, name: &[u8]) -> Option<usize> {
        let groups = &self.groups;
        self.by_name.find(name, groups.len(), |at| &groups[at].name)
    }

    fn add(&mut self, subscription: Arc<Subscription>) -> Edge {
        let counts = u32::from(subscription.is_counted());
        let (list, counted) = match subscription.queue() {
            None => (&mut self.each, 0),
            Some(name) => {
                let at = self.group_index(name).unwrap_or_else(|| {
                    let Self { groups, by_name, .. } = &mut *self;
                    groups.push(GroupEntry {
                        name: name.into(),
                        members: Vec::new(),
                        counted: 0,
                    });
                    by_name.pushed(groups.len(), |at| &groups[at].name);
                    groups.len() - 1
                });
                let group = &mut self.groups[at];
                group.counted += counts;
                (&mut group.members, group.counted)
            }
        };
        let in_group = subscription.queue().is_some();
        subscription.place.store(list.len() as u32, Ordering::Relaxed);
        list.push(subscription);
        match list.len() {
            1 => Edge::First,
            _ if in_group => Edge::Members(counted),
            _ => Edge::None,
        }
    }

    fn remove(&mut self, subscription: &Arc<Subscription>) -> Option<Edge> {
        let Some(name) = subscription.queue() else {
            let removed = take_out(&mut self.each, subscription);
            let edge = if self.each.is_empty() {
                Edge::Last
            } else {
                Edge::None
            };
            return removed.then_some(edge);
        };
        let at = self.group_index(name)?;
        let group = &mut self.groups[at];
        if !take_out(&mut group.members, subscription) {
            return None;
        }
        group.counted -= u32::from(subscription.is_counted());
        let counted = group.counted;
        if group.members.is_empty() {
            let Self { groups, by_name, .. } = self;
            by_name.swap_removing(at, groups.len(), |at| &groups[at].name);
            groups.swap_remove(at);
            return Some(Edge::Last);
        }
        Some(Edge::Members(counted))
    }
}

fn is_at_its_place(list: &[Arc<Subscription>], subscription: &Arc<Subscription>) -> bool {
    let place = subscription.place.load(Ordering::Relaxed) as usize;
    list.get(place).is_some_and(|it| Arc::ptr_eq(it, subscription))
}

fn take_out(list: &mut Vec<Arc<Subscription>>, subscription: &Arc<Subscription>) -> bool {
    let place = subscription.place.load(Ordering::Relaxed) as usize;
    if !is_at_its_place(list, subscription) {
        return false;
    }
    list.swap_remove(place);
    if let Some(moved) = list.get(place) {
        moved.place.store(place as u32, Ordering::Relaxed);
    }
    true
}
