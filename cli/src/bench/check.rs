//! Checks what is read: every event whole, each key of each writer in order, none missing, none
//! twice.

use super::payload::{Header, Payload};

/// What has been read so far. A stream may have been truncated before reading began, so that the
/// first event of a key may have any number; from there on they follow each other.
#[derive(Debug, Clone)]
pub(super) struct Checker {
    payload: Payload,
    keys: usize,
    /// By writer and key, the last number; 0: none.
    last: Vec<u64>,
    events: u64,
}

impl Checker {
    pub(super) fn new(event_size: usize, writers: usize, keys: usize) -> Self {
        let last = vec![0; writers * keys];
        Self { payload: Payload::new(event_size), keys, last, events: 0 }
    }

    /// Checks an event against those before it.
    pub(super) fn read(&mut self, event: &[u8]) -> Result<Header, String> {
        let header = self.payload.open(event)?;
        let slot = header.writer as usize * self.keys + header.key as usize;
        let known = (header.key as usize) < self.keys && slot < self.last.len();
        let Some(last) = self.last.get_mut(slot).filter(|_| known) else {
            return Err(format!("an event is of writer {}, which did not write", header.writer));
        };
        if *last != 0 && header.number != *last + 1 {
            return Err(format!(
                "writer {}, key {}: event {} comes behind event {last}",
                header.writer, header.key, header.number
            ));
        }
        *last = header.number;
        self.events += 1;
        Ok(header)
    }

    /// Compares the last numbers read with the last ones sent. A key of which nothing was read is
    /// accepted where `truncated` may have taken it all.
    pub(super) fn finish(&self, sent: &[u64], truncated: bool) -> Result<u64, String> {
        assert_eq!(sent.len(), self.last.len(), "both are by writer and key");
        for (slot, (&read, &sent)) in self.last.iter().zip(sent).enumerate() {
            if read != sent && !(truncated && read == 0) {
                let (writer, key) = (slot / self.keys, slot % self.keys);
                return Err(format!(
                    "writer {writer}, key {key}: {sent} events were acknowledged, the last one \
                     read is {read}"
                ));
            }
        }
        Ok(self.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(writer: u32, key: u32, number: u64) -> Vec<u8> {
        Payload::new(32).with(Header { writer, key, number, sent_nanos: 0 }).to_vec()
    }

    #[test]
    fn keys_are_checked_each_for_itself() {
        let mut checker = Checker::new(32, 2, 2);
        for (writer, key, number) in [(0, 0, 1), (1, 1, 1), (0, 0, 2), (0, 1, 1), (1, 1, 2)] {
            checker.read(&event(writer, key, number)).unwrap();
        }
        assert_eq!(checker.finish(&[2, 1, 0, 2], false), Ok(5));
        assert!(checker.finish(&[2, 1, 1, 2], false).is_err(), "a lost key is noticed");
        assert!(checker.finish(&[3, 1, 0, 2], false).is_err(), "a lost end is noticed");
        assert_eq!(checker.finish(&[2, 1, 1, 2], true), Ok(5));
    }

    #[test]
    fn a_gap_a_double_and_a_stranger_are_noticed() {
        let mut checker = Checker::new(32, 1, 1);
        checker.read(&event(0, 0, 7)).unwrap();
        for (writer, key, number) in [(0, 0, 7), (0, 0, 9), (0, 0, 6), (1, 0, 8), (0, 1, 8)] {
            assert!(checker.read(&event(writer, key, number)).is_err());
        }
        checker.read(&event(0, 0, 8)).unwrap();
    }
}
