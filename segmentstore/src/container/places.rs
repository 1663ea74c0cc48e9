//! Every place in objects that segments refer to: for whoever checks that the objects are what
//! their extents say.

use replica::Piece;

use super::ContainerMachine;

impl ContainerMachine {
    pub(super) fn places(&self, each: &mut dyn FnMut(Piece)) {
        for (id, segment) in &self.segments {
            let owner = u128::from_be_bytes(id.encode());
            for extent in segment.shared.lock().objects.items() {
                let (position, bytes) = (extent.offset.0, extent.bytes);
                each(Piece { owner, position, rested: extent.rested, bytes });
            }
        }
    }
}
