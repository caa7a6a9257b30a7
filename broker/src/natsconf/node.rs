//! The keys and values of a settings file.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use standin_daemon::settings::Place;

/// A value of the file. Numbers and booleans keep their source text, for keys whose value is a string.
/// `Debug` hides it, because it may be a secret.
#[derive(Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    Integer(i64, String),
    Float(f64, String),
    Bool(bool, String),
    Map(Vec<Entry>),
    List(Vec<(Place, Node)>),
    /// The value of an unknown variable. Left out of maps and lists.
    Unknown,
}

impl fmt::Debug for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Node").finish_non_exhaustive()
    }
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
    /// Whether a variable refers to the key. If so, the key need not be a setting.
    pub(super) is_used: Rc<Cell<bool>>,
}
