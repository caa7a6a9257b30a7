//! Two sockets in memory with limited room, for the tests and the fuzz target of the session.

use std::io::IoSlice;

use super::Wires;

/// The two sockets. They keep the bytes that they take.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) node: Vec<u8>,
    pub(crate) node_room: usize,
    pub(crate) component: Vec<u8>,
    pub(crate) component_room: usize,
}

impl Wires for Pipes {
    fn write_node(&mut self, parts: &[IoSlice<'_>]) -> usize {
        take(parts, &mut self.node, &mut self.node_room)
    }

    fn write_component(&mut self, parts: &[IoSlice<'_>]) -> usize {
        take(parts, &mut self.component, &mut self.component_room)
    }
}

fn take(parts: &[IoSlice<'_>], to: &mut Vec<u8>, room: &mut usize) -> usize {
    let mut taken = 0;
    for part in parts {
        let fits = part.len().min(*room);
        to.extend_from_slice(&part[..fits]);
        *room -= fits;
        taken += fits;
    }
    taken
}
