//! Permissions: the subjects to which a client may publish, and to which it may subscribe.
//!
//! The rules are those of `nats-server`: <https://docs.nats.io/running-a-nats-service/configuration/securing_nats/authorization>.
//! A subject is allowed if an entry of `allow` covers it, or if there is no `allow`, and if no entry of `deny` covers it.
//! An entry for subscriptions may name a queue group, as `subject queue`. It then applies to members of that queue group alone.
//!
//! In one point the rules are stricter than those of `nats-server`: an entry covers a subscription only if it matches
//! every subject of the subscription. `nats-server` lets an entry `a.*` cover a subscription to `a.>`.

use std::fmt;

use thiserror::Error;

use crate::subject::{Pattern, PatternError, contains, valid_subscription};

/// The permissions of one client. The default allows everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    /// The rules for PUB and HPUB.
    pub publish: Rules,
    /// The rules for SUB.
    pub subscribe: Rules,
}

/// The rules for one direction: allowed and denied subjects. The default allows everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// `None` allows every subject that is not denied; an empty list allows none.
    allow: Option<Box<[Entry]>>,
    deny: Box<[Entry]>,
}

/// Error for a text that is not an entry of [`Rules`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuleError {
    /// The subject is not valid.
    #[error(transparent)]
    Subject(#[from] PatternError),
    /// The text has more than two words.
    #[error("`{0}` is not a subject with a queue group: write `subject queue`")]
    Queue(String),
    /// A rule for publishes has a queue group.
    #[error("`{0}` names a queue group, which is possible for subscriptions only")]
    PublishQueue(String),
}

/// A frame that the permissions forbid. It is shown as the text of the `-ERR` for it, without quotes, in the words of
/// `nats-server`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation<'a> {
    /// A publish to this subject.
    Publish(&'a [u8]),
    /// A subscription to this subject, with its queue group.
    Subscription(&'a [u8], Option<&'a [u8]>),
}

impl fmt::Display for Violation<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy;
        match *self {
            Self::Publish(subject) => {
                write!(
                    formatter,
                    "Permissions Violation for Publish to {:?}",
                    text(subject)
                )
            }
            Self::Subscription(subject, queue) => {
                write!(
                    formatter,
                    "Permissions Violation for Subscription to {:?}",
                    text(subject)
                )?;
                queue.map_or(Ok(()), |queue| {
                    write!(formatter, " using queue {:?}", text(queue))
                })
            }
        }
    }
}

/// One subject pattern of a rule, with the queue group to which the rule is limited.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    subject: Pattern,
    queue: Option<Box<[u8]>>,
}

impl Rules {
    /// Creates the rules for publishes. Without `allow`, everything is allowed that is not denied.
    ///
    /// # Errors
    /// [`RuleError`] for the first entry that is not a subject pattern.
    pub fn for_publish<S: AsRef<str>>(allow: Option<&[S]>, deny: &[S]) -> Result<Self, RuleError> {
        Self::new(allow, deny, |text| {
            let entry = Entry::new(text)?;
            match entry.queue {
                Some(_) => Err(RuleError::PublishQueue(text.to_owned())),
                None => Ok(entry),
            }
        })
    }

    /// Creates the rules for subscriptions, with entries `subject` and `subject queue`. Without `allow`, everything is
    /// allowed that is not denied.
    ///
    /// # Errors
    /// [`RuleError`] for the first entry that is neither.
    pub fn for_subscribe<S: AsRef<str>>(allow: Option<&[S]>, deny: &[S]) -> Result<Self, RuleError> {
        Self::new(allow, deny, Entry::new)
    }

    fn new<S: AsRef<str>>(
        allow: Option<&[S]>,
        deny: &[S],
        entry: impl Fn(&str) -> Result<Entry, RuleError>,
    ) -> Result<Self, RuleError> {
        let entries = |texts: &[S]| {
            let entries = texts.iter().map(|text| entry(text.as_ref()));
            entries.collect::<Result<Box<[Entry]>, RuleError>>()
        };
        Ok(Self {
            allow: allow.map(entries).transpose()?,
            deny: entries(deny)?,
        })
    }

    /// Returns whether everything is allowed.
    #[must_use]
    pub fn allow_all(&self) -> bool {
        self.allow.is_none() && self.deny.is_empty()
    }

    /// Returns whether a message may be published to `subject`.
    #[must_use]
    pub fn allows_subject(&self, subject: &[u8]) -> bool {
        // As in nats-server, no entry allows a subject with an empty token.
        let allows =
            |allow: &[Entry]| allow.iter().any(|entry| entry.matches(subject)) && valid_subscription(subject);
        self.allow.as_deref().is_none_or(allows) && !self.denies_subject(subject)
    }

    /// Returns whether `deny` has an entry, other than those of queue groups, that matches `subject`. A message with such
    /// a subject is not delivered to a subscription for which [`deny_overlaps`](Self::deny_overlaps).
    #[must_use]
    pub fn denies_subject(&self, subject: &[u8]) -> bool {
        self.deny.iter().any(|entry| entry.matches(subject))
    }

    /// Returns whether a subscription to `pattern` is allowed, as a member of the group `queue` if there is one. As in
    /// `nats-server`, entries with a queue group that cover the subject of a member decide alone, without the entries that
    /// have no queue group.
    #[must_use]
    pub fn allows_subscription(&self, pattern: &[u8], queue: Option<&[u8]>) -> bool {
        let allows = |allow: &[Entry]| cover(allow, pattern, queue);
        self.allow.as_deref().is_none_or(allows) && !cover(&self.deny, pattern, queue)
    }

    /// Returns whether a subscription to `pattern` would receive messages with denied subjects.
    #[must_use]
    pub fn deny_overlaps(&self, pattern: &[u8]) -> bool {
        let overlaps = |entry: &Entry| entry.queue.is_none() && entry.subject.overlaps(pattern);
        self.deny.iter().any(overlaps)
    }
}

/// Returns whether `entries` cover a subscription to `pattern`.
fn cover(entries: &[Entry], pattern: &[u8], queue: Option<&[u8]>) -> bool {
    let mut plain = false;
    let mut grouped = false;
    for entry in entries.iter().filter(|entry| entry.subject.contains(pattern)) {
        match (&entry.queue, queue) {
            (None, _) => plain = true,
            (Some(group), Some(queue)) if contains(group, queue) || **group == *queue => return true,
            (Some(_), Some(_)) => grouped = true,
            (Some(_), None) => {}
        }
    }
    plain && !grouped
}

impl Entry {
    fn new(text: &str) -> Result<Self, RuleError> {
        let mut words = text.split_ascii_whitespace();
        let subject = Pattern::new(words.next().unwrap_or_default())?;
        let queue = words.next().map(|queue| queue.as_bytes().into());
        match words.next() {
            Some(_) => Err(RuleError::Queue(text.to_owned())),
            None => Ok(Self { subject, queue }),
        }
    }

    /// Returns whether this entry, which must have no queue group, matches `subject`.
    fn matches(&self, subject: &[u8]) -> bool {
        self.queue.is_none() && self.subject.matches(subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(allow: Option<&[&str]>, deny: &[&str]) -> Rules {
        Rules::for_publish(allow, deny).unwrap()
    }

    fn subscribe(allow: Option<&[&str]>, deny: &[&str]) -> Rules {
        Rules::for_subscribe(allow, deny).unwrap()
    }

    #[test]
    fn publishes_need_an_allow_entry_and_no_deny_entry() {
        let rules = publish(Some(&["a.*", "b.>"]), &["a.x", "b.*.y"]);
        for (subject, allowed) in [
            ("a.b", true),
            ("a.x", false),
            ("a.b.c", false),
            ("b.c.d", true),
            ("b.c.y", false),
            ("c", false),
            ("b..c", false),
            ("a.", false),
        ] {
            assert_eq!(rules.allows_subject(subject.as_bytes()), allowed, "{subject}");
        }
        assert!(publish(None, &["a"]).allows_subject(b"b"));
        assert!(!publish(Some(&[]), &[]).allows_subject(b"b"));
        assert!(Rules::default().allow_all() && !rules.allow_all());
    }

    #[test]
    fn subscriptions_need_an_allow_entry_that_contains_them() {
        let rules = subscribe(Some(&["a.*", "b.>"]), &["b.x.>"]);
        for (pattern, allowed, filtered) in [
            ("a.b", true, false),
            ("a.*", true, false),
            ("a.>", false, false),
            ("*.b", false, false),
            (">", false, true),
            ("b.>", true, true),
            ("b.*.y", true, true),
            ("b.x.y", false, true),
            ("b.x.>", false, true),
        ] {
            let pattern_bytes = pattern.as_bytes();
            assert_eq!(
                rules.allows_subscription(pattern_bytes, None),
                allowed,
                "{pattern}"
            );
            assert_eq!(rules.deny_overlaps(pattern_bytes), filtered, "{pattern}");
        }
        assert!(rules.denies_subject(b"b.x.1") && !rules.denies_subject(b"b.y.1"));
    }

    #[test]
    fn entries_with_a_queue_group_apply_to_its_members() {
        let rules = subscribe(
            Some(&["foo", "foo v1", "foo v1.>", "foo *.dev", "bar q"]),
            &["> *.prod"],
        );
        for (subject, queue, allowed) in [
            ("foo", None, true),
            ("foo", Some("v1"), true),
            ("foo", Some("v1.x.y"), true),
            ("foo", Some("v1.prod"), false),
            ("foo", Some("v2.dev"), true),
            ("foo", Some("v2"), false),
            ("bar", None, false),
            ("bar", Some("q"), true),
            ("bar", Some("r"), false),
        ] {
            let queue = queue.map(str::as_bytes);
            assert_eq!(
                rules.allows_subscription(subject.as_bytes(), queue),
                allowed,
                "{subject} {queue:?}"
            );
        }
        assert!(!rules.deny_overlaps(b"foo"));
        let plain = subscribe(Some(&["foo"]), &["bar"]);
        assert!(plain.allows_subscription(b"foo", Some(b"q")));
        assert!(!plain.allows_subscription(b"bar", Some(b"q")));
    }

    #[test]
    fn the_texts_of_violations_are_those_of_nats_server() {
        for (violation, text) in [
            (
                Violation::Publish(b"a.b"),
                "Permissions Violation for Publish to \"a.b\"",
            ),
            (
                Violation::Subscription(b"a.>", None),
                "Permissions Violation for Subscription to \"a.>\"",
            ),
            (
                Violation::Subscription(b"a", Some(b"q")),
                "Permissions Violation for Subscription to \"a\" using queue \"q\"",
            ),
        ] {
            assert_eq!(violation.to_string(), text);
        }
    }

    #[test]
    fn bad_entries_are_named() {
        let error = |entry: &str| Rules::for_subscribe(None, &[entry]).unwrap_err().to_string();
        assert!(error("a..b").contains("`a..b`"));
        assert!(error("").contains("``"));
        assert!(error("a b c").contains("`a b c`"));
        let error = Rules::for_publish(Some(&["a q"]), &[]).unwrap_err();
        assert!(error.to_string().contains("`a q`"));
    }
}
