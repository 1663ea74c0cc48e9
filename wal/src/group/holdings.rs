//! Which files hold a group's entries, and how much each of them holds.

use std::collections::VecDeque;

use super::Place;

/// Sorted by file. Entries come to the newest file and mostly leave the oldest, so that both ends
/// are where the work is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holdings(VecDeque<Holding>);

/// What one file holds of a group; never nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) file: u32,
    pub(crate) entries: u64,
}

impl Holdings {
    pub(crate) fn of<'a>(places: impl Iterator<Item = &'a Place>) -> Holdings {
        let mut holdings = Holdings::default();
        places.for_each(|place| holdings.add(place));
        holdings
    }

    /// Entries given up are in no file.
    pub(crate) fn add(&mut self, place: &Place) {
        if place.is_lost() {
            return;
        }
        match self.find(place.file) {
            Ok(at) => self.0[at].entries += 1,
            Err(at) => self.0.insert(at, Holding { file: place.file, entries: 1 }),
        }
    }

    pub(crate) fn remove(&mut self, place: &Place) {
        if place.is_lost() {
            return;
        }
        let at = self.find(place.file).expect("an entry leaves a file that holds it");
        self.0[at].entries -= 1;
        if self.0[at].entries == 0 {
            self.0.remove(at);
        }
    }

    fn find(&self, file: u32) -> Result<usize, usize> {
        match (self.0.back(), self.0.front()) {
            (Some(newest), _) if newest.file == file => Ok(self.0.len() - 1),
            (_, Some(oldest)) if oldest.file == file => Ok(0),
            _ => self.0.binary_search_by_key(&file, |holding| holding.file),
        }
    }

    /// The oldest file that holds any, and how many.
    pub(crate) fn oldest(&self) -> Option<Holding> {
        self.0.front().copied()
    }
}
