//! Index from the name of a queue group to its position in a list. A subject may have thousands of groups. Without
//! the index, adding them all would take quadratic time.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Until a list exceeds this length, it is searched linearly, without a table.
const LINEAR_MAX: usize = 16;

/// Index of names to positions. The names are in the list itself; `name_at` returns the name at a position.
#[derive(Debug, Default)]
pub(crate) struct NameIndex(Option<Box<Places>>);

#[derive(Debug, Default)]
struct Places {
    table: HashTable<u32>,
    hasher: RandomState,
}

impl NameIndex {
    /// Returns the position of `name` in the list of `len` items.
    pub(crate) fn find<'n>(
        &self,
        name: &[u8],
        len: usize,
        name_at: impl Fn(usize) -> &'n [u8],
    ) -> Option<usize> {
        let Some(Places { table, hasher }) = self.0.as_deref() else {
            return (0..len).find(|at| name_at(*at) == name);
        };
        let found = table.find(hasher.hash_one(name), |at| name_at(*at as usize) == name);
        found.map(|at| *at as usize)
    }

    /// Records that an item was added at the end of the list, which now has `len` items.
    pub(crate) fn pushed<'n>(&mut self, len: usize, name_at: impl Fn(usize) -> &'n [u8]) {
        match &mut self.0 {
            Some(places) => places.insert(len - 1, &name_at),
            None if len > LINEAR_MAX => {
                let mut places = Box::<Places>::default();
                (0..len).for_each(|at| places.insert(at, &name_at));
                self.0 = Some(places);
            }
            None => {}
        }
    }

    /// Records that the item at `at` is about to be removed by `Vec::swap_remove`, which moves the last item to `at`.
    /// The list still has `len` items.
    pub(crate) fn swap_removing<'n>(&mut self, at: usize, len: usize, name_at: impl Fn(usize) -> &'n [u8]) {
        let Some(Places { table, hasher }) = self.0.as_deref_mut() else {
            return;
        };
        let last = len - 1;
        let hash = hasher.hash_one(name_at(at));
        if let Ok(entry) = table.find_entry(hash, |place| *place as usize == at) {
            entry.remove();
        }
        if at != last
            && let Some(place) =
                table.find_mut(hasher.hash_one(name_at(last)), |place| *place as usize == last)
        {
            *place = at as u32;
        }
        if last == 0 {
            self.0 = None;
        }
    }
}

impl Places {
    fn insert<'n>(&mut self, at: usize, name_at: &impl Fn(usize) -> &'n [u8]) {
        let hasher = &self.hasher;
        self.table
            .insert_unique(hasher.hash_one(name_at(at)), at as u32, |place| {
                hasher.hash_one(name_at(*place as usize))
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_after_any_insertions_and_removals() {
        let (mut list, mut index): (Vec<String>, _) = (Vec::new(), NameIndex::default());
        let mut seed = 1_u64;
        for step in 0..20_000_u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step);
            let name = format!("g{}", (seed >> 33) % 200);
            let found = index.find(name.as_bytes(), list.len(), |at| list[at].as_bytes());
            assert_eq!(found, list.iter().position(|known| *known == name));
            match found {
                Some(at) => {
                    index.swap_removing(at, list.len(), |at| list[at].as_bytes());
                    list.swap_remove(at);
                }
                None => {
                    list.push(name);
                    index.pushed(list.len(), |at| list[at].as_bytes());
                }
            }
        }
        assert!(list.len() > LINEAR_MAX);
    }
}
