//! Where segments are now.

use common::SegmentId;
use proto::convert::SegmentPlace;

use super::WriterCore;
use super::forgotten::Absence;
use super::segment::State;

impl WriterCore {
    /// Whether segments may have moved: a store said that it does not lead a container, or is not
    /// reached. Then [`WriterCore::unsettled`] have to be located and given to
    /// [`WriterCore::on_places`].
    pub fn take_relocate(&mut self) -> bool {
        let relocate = std::mem::take(&mut self.relocate);
        if relocate {
            self.segments.iter_mut().for_each(|segment| segment.absence.is_asked_about());
        }
        relocate
    }

    /// The segments that the writer may still want something of.
    pub fn unsettled(&self) -> Vec<SegmentId> {
        let ended =
            |state| matches!(state, State::Sealed | State::AwaitingSuccessors | State::Failed);
        let segments = self.segments.iter().filter(|segment| !ended(segment.state));
        segments.map(|segment| segment.place.segment).collect()
    }

    /// Segments may have moved to other stores. Of a named writer, it is also what tells that the
    /// name is still this process's: so the controller answers nobody else.
    pub fn on_places(&mut self, places: &[SegmentPlace]) {
        for place in places {
            let Some(&index) = self.by_id.get(&place.segment) else { continue };
            if self.segments[index].absence == Absence::AskedAbout {
                self.fail_lost(index, 0);
                return;
            }
            let link = self.link_to(&place.endpoint);
            if self.segments[index].link != link {
                self.leave_session(index);
                let segment = &mut self.segments[index];
                segment.link = link;
                segment.place = place.clone();
                // It may stand in the old link's queue, which nobody may ever look at again.
                segment.ready = false;
                self.reopen_if_needed(index);
            }
        }
    }
}
