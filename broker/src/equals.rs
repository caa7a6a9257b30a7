//! The subscriptions with one and the same subject: those that each get a message, and the queue groups.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::subscription::Subscription;
use crate::subscriptions::{Matched, Page};

/// The subscriptions with one and the same subject. Most subjects have one, so that is kept without a list.
#[derive(Debug)]
pub(crate) enum Equals {
    One(Arc<Subscription>),
    Many(Box<Many>),
}

#[derive(Debug, Default)]
pub(crate) struct Many {
    each: Vec<Arc<Subscription>>,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    name: Box<[u8]>,
    members: Vec<Arc<Subscription>>,
}

impl Equals {
    pub(crate) fn subject(&self) -> &[u8] {
        match self {
            Self::One(one) => one.subject(),
            Self::Many(many) => many.first().map_or(&[], |first| first.subject()),
        }
    }

    pub(crate) fn add(&mut self, subscription: Arc<Subscription>) {
        if let Self::One(one) = self {
            let mut many = Box::<Many>::default();
            many.add(Arc::clone(one));
            *self = Self::Many(many);
        }
        if let Self::Many(many) = self {
            many.add(subscription);
        }
    }

    /// Returns whether it was there, and whether none is left.
    pub(crate) fn remove(&mut self, subscription: &Arc<Subscription>) -> (bool, bool) {
        match self {
            Self::One(one) => {
                let it = Arc::ptr_eq(one, subscription);
                (it, it)
            }
            Self::Many(many) => {
                let removed = many.remove(subscription);
                (removed, many.first().is_none())
            }
        }
    }

    pub(crate) fn collect(&self, matched: &mut Matched) {
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

impl Equals {
    pub(crate) fn each(&self, page: &mut Page) {
        match self {
            Self::One(one) => page.offer(one),
            Self::Many(many) => {
                let in_groups = many.groups.iter().flat_map(|group| &group.members);
                many.each.iter().chain(in_groups).for_each(|one| page.offer(one));
            }
        }
    }
}

impl Many {
    fn first(&self) -> Option<&Arc<Subscription>> {
        let in_groups = || self.groups.first().and_then(|group| group.members.first());
        self.each.first().or_else(in_groups)
    }

    fn add(&mut self, subscription: Arc<Subscription>) {
        let list = match subscription.queue() {
            None => &mut self.each,
            Some(name) => {
                let at = self.groups.iter().position(|group| *group.name == *name);
                let at = at.unwrap_or_else(|| {
                    self.groups.push(Group {
                        name: name.into(),
                        members: Vec::new(),
                    });
                    self.groups.len() - 1
                });
                &mut self.groups[at].members
            }
        };
        subscription.place.store(list.len() as u32, Ordering::Relaxed);
        list.push(subscription);
    }

    fn remove(&mut self, subscription: &Arc<Subscription>) -> bool {
        let Some(name) = subscription.queue() else {
            return take_out(&mut self.each, subscription);
        };
        let Some(at) = self.groups.iter().position(|group| *group.name == *name) else {
            return false;
        };
        let removed = take_out(&mut self.groups[at].members, subscription);
        if self.groups[at].members.is_empty() {
            self.groups.swap_remove(at);
        }
        removed
    }
}

fn take_out(list: &mut Vec<Arc<Subscription>>, subscription: &Arc<Subscription>) -> bool {
    let place = subscription.place.load(Ordering::Relaxed) as usize;
    if !list.get(place).is_some_and(|it| Arc::ptr_eq(it, subscription)) {
        return false;
    }
    list.swap_remove(place);
    if let Some(moved) = list.get(place) {
        moved.place.store(place as u32, Ordering::Relaxed);
    }
    true
}
