//! The subjects with wildcards, as a tree of tokens.
//!
//! The nodes of the tree are in one list and refer to each other by index. No function is recursive, so the stack does not grow with the
//! number of tokens.
//!
//! The scope of an [`account`] is matched by itself only, never by a wildcard.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::matched::Matched;
use super::subject_entry::{Edge, SubjectEntry};
use crate::account;
use crate::subscription::Subscription;
use crate::tokens::Tokens;

/// Index of the root, which is never removed.
const ROOT: usize = 0;

/// A node of the tree. The path to the node is the first tokens of a subject; the node holds what may follow.
#[derive(Debug, Default)]
struct Node {
    /// Children by the next token, if it is literal.
    tokens: HashMap<Box<[u8]>, u32, RandomState>,
    /// Child for the next token `*`.
    any: Option<u32>,
    /// Subscriptions whose next and last token is `>`.
    rest: Option<SubjectEntry>,
    /// Subscriptions whose subject ends here.
    end: Option<SubjectEntry>,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.any.is_none() && self.rest.is_none() && self.end.is_none()
    }
}

#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    free: Vec<u32>,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            free: Vec::new(),
        }
    }
}

impl Tree {
    pub(super) fn add(&mut self, tokens: Tokens<'_>, subscription: Arc<Subscription>) -> Edge {
        let mut at = ROOT;
        for token in tokens {
            if token == b">" {
                return put(&mut self.nodes[at].rest, subscription);
            }
            at = match self.child(at, token) {
                Some(child) => child,
                None => self.add_child(at, token),
            };
        }
        put(&mut self.nodes[at].end, subscription)
    }

    /// Removes a subscription. Returns the effect, or `None` if the subscription was not there.
    pub(super) fn remove(&mut self, tokens: Tokens<'_>, subscription: &Arc<Subscription>) -> Option<Edge> {
        let (mut at, mut path) = (ROOT, Vec::new());
        let mut slot = None;
        for token in tokens {
            if token == b">" {
                slot = Some(&mut self.nodes[at].rest);
                break;
            }
            let child = self.child(at, token)?;
            path.push((at, token));
            at = child;
        }
        let slot = match slot {
            Some(slot) => slot,
            None => &mut self.nodes[at].end,
        };
        let entry = slot.as_mut()?;
        let edge = entry.remove(subscription)?;
        if entry.is_empty(edge) {
            *slot = None;
        }
        while self.nodes[at].is_empty()
            && let Some((parent, token)) = path.pop()
        {
            self.remove_child(parent, token, at);
            at = parent;
        }
        Some(edge)
    }

    /// Returns the entry of the subject with these tokens.
    pub(super) fn find_mut(&mut self, tokens: Tokens<'_>) -> Option<&mut SubjectEntry> {
        let mut at = ROOT;
        for token in tokens {
            if token == b">" {
                return self.nodes[at].rest.as_mut();
            }
            at = self.child(at, token)?;
        }
        self.nodes[at].end.as_mut()
    }

    /// Adds the subscriptions that match a subject with these tokens to `matched`.
    pub(super) fn collect(&self, tokens: Tokens<'_>, matched: &mut Matched) {
        let root = match tokens.clone().next() {
            Some(scope) if account::is_scope(scope) => self.child(ROOT, scope),
            _ => Some(ROOT),
        };
        let Some(root) = root else { return };
        let mut ahead = vec![(root, tokens)];
        if root != ROOT {
            ahead[0].1.next();
        }
        while let Some((at, mut tokens)) = ahead.pop() {
            let node = &self.nodes[at];
            let Some(token) = tokens.next() else {
                if let Some(end) = &node.end {
                    end.collect(matched);
                }
                continue;
            };
            if let Some(rest) = &node.rest {
                rest.collect(matched);
            }
            if let Some(child) = node.tokens.get(token) {
                ahead.push((*child as usize, tokens.clone()));
            }
            if let Some(any) = node.any {
                ahead.push((any as usize, tokens));
            }
        }
    }

    /// Returns the entries of all subjects.
    pub(super) fn entries(&self) -> impl Iterator<Item = &SubjectEntry> {
        self.nodes
            .iter()
            .flat_map(|node| [&node.end, &node.rest])
            .flatten()
    }

    /// Calls `each` for the entries of `count` nodes from index `start` on. A node keeps its index, so an entry that exists during all
    /// calls is not missed, even if others are added and removed between them. Returns whether there are more nodes.
    pub(super) fn piece(&self, start: usize, count: usize, mut each: impl FnMut(&SubjectEntry)) -> bool {
        let end = (start + count).min(self.nodes.len());
        for node in self.nodes.get(start..end).unwrap_or_default() {
            [&node.end, &node.rest].into_iter().flatten().for_each(&mut each);
        }
        end < self.nodes.len()
    }

    fn child(&self, at: usize, token: &[u8]) -> Option<usize> {
        let node = &self.nodes[at];
        let child = match token {
            b"*" => node.any,
            _ => node.tokens.get(token).copied(),
        };
        child.map(|child| child as usize)
    }

    fn add_child(&mut self, at: usize, token: &[u8]) -> usize {
        let place = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node::default());
            (self.nodes.len() - 1) as u32
        });
        let node = &mut self.nodes[at];
        match token {
            b"*" => node.any = Some(place),
            _ => drop(node.tokens.insert(token.into(), place)),
        }
        place as usize
    }

    fn remove_child(&mut self, parent: usize, token: &[u8], child: usize) {
        let node = &mut self.nodes[parent];
        match token {
            b"*" => node.any = None,
            _ => drop(node.tokens.remove(token)),
        }
        self.nodes[child] = Node::default();
        if child + 1 == self.nodes.len() {
            self.nodes.pop();
            if self.nodes.capacity() > 4 * self.nodes.len() {
                self.nodes.shrink_to(2 * self.nodes.len());
            }
        } else {
            self.free.push(child as u32);
        }
    }
}

fn put(slot: &mut Option<SubjectEntry>, subscription: Arc<Subscription>) -> Edge {
    match slot {
        Some(entry) => entry.add(subscription),
        None => {
            *slot = Some(SubjectEntry::One(subscription));
            Edge::First
        }
    }
}
