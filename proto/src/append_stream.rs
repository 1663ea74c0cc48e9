//! What a message of an append stream would become, told from its bytes before it is decoded.
//!
//! A block that says nothing takes two bytes on the wire and a hundred in memory, so that a message
//! within its limit could decode into a hundred times its size. The items are counted first, which
//! costs a step for each and no memory; whoever counts decides whether to decode.

use bytes::{Buf, Bytes};
pub use prost::DecodeError;
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::v1::AppendRequest;

/// The numbers of `AppendRequest.open`, `OpenSessions.segments`, `AppendRequest.blocks`,
/// `AppendBlocks.blocks`, `AppendRequest.close` and `CloseSessions.slots`.
const OPEN: u32 = 2;
const OPEN_SEGMENTS: u32 = 3;
const BLOCKS: u32 = 3;
const BLOCKS_BLOCKS: u32 = 1;
const CLOSE: u32 = 4;
const CLOSE_SLOTS: u32 = 1;

/// The items of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Items {
    pub blocks: usize,
    /// Segments that an `Open` names.
    pub opens: usize,
    /// Slots that a `Close` names.
    pub closes: usize,
}

/// Counts the items of an encoded `AppendRequest`. Parts of one kind that come several times are
/// added up, as the decoder merges them; what it would refuse may be refused here or pass.
pub fn count_items(mut message: &[u8]) -> Result<Items, DecodeError> {
    let mut items = Items::default();
    while message.has_remaining() {
        match decode_key(&mut message)? {
            (OPEN, WireType::LengthDelimited) => {
                items.opens += count_fields(take(&mut message)?, OPEN_SEGMENTS)?;
            }
            (BLOCKS, WireType::LengthDelimited) => {
                items.blocks += count_fields(take(&mut message)?, BLOCKS_BLOCKS)?;
            }
            (CLOSE, WireType::LengthDelimited) => items.closes += count_slots(take(&mut message)?)?,
            (field, kind) => skip_field(kind, field, &mut message, DecodeContext::default())?,
        }
    }
    Ok(items)
}

/// Decodes an `AppendRequest`, whose blocks are parts of `message` and not copied.
pub fn decode(message: Bytes) -> Result<AppendRequest, DecodeError> {
    AppendRequest::decode(message)
}

/// The bytes of a message, without the prefix that gRPC puts before them.
pub fn encode(request: &AppendRequest) -> Vec<u8> {
    request.encode_to_vec()
}

/// How often a field occurs in a message.
fn count_fields(mut message: &[u8], wanted: u32) -> Result<usize, DecodeError> {
    let mut count = 0;
    while message.has_remaining() {
        let (field, kind) = decode_key(&mut message)?;
        count += usize::from(field == wanted);
        skip_field(kind, field, &mut message, DecodeContext::default())?;
    }
    Ok(count)
}

/// The slots of a `CloseSessions`, one by one or packed together.
fn count_slots(mut message: &[u8]) -> Result<usize, DecodeError> {
    let mut count = 0;
    while message.has_remaining() {
        match decode_key(&mut message)? {
            // The last byte of each number has its highest bit clear.
            (CLOSE_SLOTS, WireType::LengthDelimited) => {
                count += take(&mut message)?.iter().filter(|byte| **byte < 0x80).count();
            }
            (field, kind) => {
                count += usize::from(field == CLOSE_SLOTS);
                skip_field(kind, field, &mut message, DecodeContext::default())?;
            }
        }
    }
    Ok(count)
}

/// The bytes of a field with a length, which are taken out of `message`.
fn take<'a>(message: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    // Refuses a length beyond the end.
    let mut behind = *message;
    skip_field(WireType::LengthDelimited, BLOCKS, &mut behind, DecodeContext::default())?;
    let bytes = decode_varint(message)?;
    let (part, rest) = message.split_at(bytes as usize);
    *message = rest;
    Ok(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::v1::append_request::Message;
    use crate::v1::{AppendBlock, AppendBlocks, CloseSessions, Hello, OpenSegment, OpenSessions};

    fn encoded(message: Message) -> Vec<u8> {
        AppendRequest { message: Some(message) }.encode_to_vec()
    }

    fn blocks(count: usize) -> Message {
        Message::Blocks(AppendBlocks { blocks: vec![AppendBlock::default(); count] })
    }

    #[test]
    fn items_are_counted_without_decoding_them() {
        let open =
            OpenSessions { segments: vec![OpenSegment::default(); 7], ..OpenSessions::default() };
        let count = |message| count_items(&encoded(message)).unwrap();
        assert_eq!(count(Message::Open(open)), Items { opens: 7, ..Items::default() });
        assert_eq!(count(blocks(1_000)), Items { blocks: 1_000, ..Items::default() });
        let close = CloseSessions { slots: vec![1, 300, u32::MAX] };
        assert_eq!(count(Message::Close(close)), Items { closes: 3, ..Items::default() });
        assert_eq!(count(Message::Hello(Hello::default())), Items::default());
    }

    #[test]
    fn parts_that_the_decoder_merges_are_added_up() {
        let twice = [encoded(blocks(300)), encoded(blocks(200))].concat();
        let decoded = AppendRequest::decode(&twice[..]).unwrap();
        let Some(Message::Blocks(merged)) = decoded.message else { panic!("they are blocks") };
        assert_eq!(merged.blocks.len(), 500);
        assert_eq!(count_items(&twice).unwrap().blocks, 500);
    }

    #[test]
    fn a_message_that_is_cut_short_is_refused() {
        let mut message = encoded(blocks(3));
        message.pop();
        assert!(count_items(&message).is_err());
    }

    proptest! {
        #[test]
        fn no_noise_decodes_into_more_than_was_counted(
            noise in prop::collection::vec(prop_oneof![Just(0x1a_u8), Just(0x0a), Just(0x12), Just(0x22), 0_u8..12], 0..60),
        ) {
            let Ok(decoded) = AppendRequest::decode(&noise[..]) else { return Ok(()) };
            let counted = count_items(&noise);
            prop_assert!(counted.is_ok());
            let counted = counted.unwrap();
            match decoded.message {
                Some(Message::Blocks(blocks)) => prop_assert!(blocks.blocks.len() <= counted.blocks),
                Some(Message::Open(open)) => prop_assert!(open.segments.len() <= counted.opens),
                Some(Message::Close(close)) => prop_assert!(close.slots.len() <= counted.closes),
                _ => {}
            }
        }
    }
}
