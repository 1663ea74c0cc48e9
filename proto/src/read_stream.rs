//! The messages of a read, cut so that neither end copies the bytes of a segment.
//!
//! On the wire they are ordinary gRPC messages of `ReadResponse`; any gRPC library reads and writes
//! them. The server sends the fields of a message with `data` last ([`message_head`]) and its bytes
//! as they lie in memory; [`ReadDecoder`] hands them out as they arrive, in pieces. Encoding and
//! decoding by the generated code costs one copy of each byte at either end.

use bytes::{Buf, Bytes, BytesMut};
use common::limits::DATA_MESSAGE_BYTES_MAX;
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};

use crate::v1::ReadResponse;

/// What precedes a gRPC message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// The number of `ReadResponse.data`.
const DATA_FIELD: u32 = 2;

/// Why bytes are not the messages of a read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadDecodeError {
    #[error("a message of {bytes} bytes is larger than the limit of {DATA_MESSAGE_BYTES_MAX}")]
    TooLarge { bytes: usize },
    #[error("a message is compressed, which was not asked for")]
    Compressed,
    #[error("a message cannot be decoded: {0}")]
    Malformed(#[from] prost::DecodeError),
}

/// Everything of a message but the bytes of `response.data`, which must follow it.
pub fn message_head(response: &ReadResponse) -> Bytes {
    let fields = ReadResponse { data: Bytes::new(), ..response.clone() };
    let mut head = BytesMut::with_capacity(64);
    head.extend_from_slice(&[0; PREFIX_BYTES]);
    fields.encode_raw(&mut head);
    if !response.data.is_empty() {
        encode_key(DATA_FIELD, WireType::LengthDelimited, &mut head);
        encode_varint(response.data.len() as u64, &mut head);
    }
    let length = (head.len() - PREFIX_BYTES + response.data.len()) as u32;
    head[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    head.freeze()
}

/// Finds the messages in the bytes of a stream, however they are cut.
#[derive(Debug, Default)]
pub struct ReadDecoder {
    /// The beginning of a message, until its kind is known; all of it, where `data` is not last.
    head: BytesMut,
    /// What has arrived behind it.
    arrived: Bytes,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    /// A message that must be complete to be decoded, of this many bytes with its prefix.
    Whole(usize),
    /// Bytes of `data` still to come; the response says where the next ones lie.
    Data(ReadResponse, usize),
}

/// What the beginning of a message says.
enum Beginning {
    Short,
    Whole(usize),
    Data(ReadResponse, usize),
}

impl ReadDecoder {
    /// Adds what has arrived. Everything before it must have been taken by [`ReadDecoder::take`].
    pub fn push(&mut self, arrived: Bytes) {
        debug_assert!(self.arrived.is_empty(), "take what is there before more is pushed");
        self.arrived = arrived;
    }

    /// Whether what arrived ends between two messages.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Head) && self.head.is_empty() && self.arrived.is_empty()
    }

    /// The next response, which may be a piece of one; `None` until more has arrived.
    pub fn take(&mut self) -> Result<Option<ReadResponse>, ReadDecodeError> {
        loop {
            match &mut self.state {
                State::Data(response, left) => {
                    if self.arrived.is_empty() {
                        return Ok(None);
                    }
                    let data = self.arrived.split_to((*left).min(self.arrived.len()));
                    *left -= data.len();
                    let is_last = *left == 0;
                    // Said once, with the first piece.
                    let times = std::mem::take(&mut response.times);
                    let mut piece = ReadResponse { data, times, ..response.clone() };
                    response.offset += piece.data.len() as u64;
                    piece.end_of_segment &= is_last;
                    if is_last {
                        self.state = State::Head;
                    }
                    return Ok(Some(piece));
                }
                State::Whole(bytes) => {
                    let missing = *bytes - self.head.len();
                    self.head
                        .extend_from_slice(&self.arrived.split_to(missing.min(self.arrived.len())));
                    if self.head.len() < *bytes {
                        return Ok(None);
                    }
                    let message = self.head.split().freeze().slice(PREFIX_BYTES..);
                    self.state = State::Head;
                    return Ok(Some(ReadResponse::decode(message)?));
                }
                State::Head => {
                    if self.arrived.is_empty() {
                        return Ok(None);
                    }
                    // Byte by byte: a head is some thirty bytes, what follows must not be copied.
                    self.head.extend_from_slice(&self.arrived.split_to(1));
                    match beginning(&self.head)? {
                        Beginning::Short => {}
                        Beginning::Whole(bytes) => self.state = State::Whole(bytes),
                        Beginning::Data(response, left) => {
                            self.head.clear();
                            self.state = State::Data(response, left);
                        }
                    }
                }
            }
        }
    }
}

fn beginning(head: &[u8]) -> Result<Beginning, ReadDecodeError> {
    let Some((prefix, mut fields)) = head.split_at_checked(PREFIX_BYTES) else {
        return Ok(Beginning::Short);
    };
    let length = (&prefix[1..]).get_u32() as usize;
    if prefix[0] != 0 {
        return Err(ReadDecodeError::Compressed);
    }
    if length > DATA_MESSAGE_BYTES_MAX {
        return Err(ReadDecodeError::TooLarge { bytes: length });
    }
    let all = PREFIX_BYTES + length;
    // What cannot be read yet may have been cut; the message as a whole will tell.
    loop {
        let before = fields.len();
        let Ok((field, kind)) = decode_key(&mut fields) else { break };
        if (field, kind) == (DATA_FIELD, WireType::LengthDelimited) {
            let Ok(bytes) = decode_varint(&mut fields) else { break };
            // All that is here has been looked at: what follows is `data`.
            let is_last = all.checked_sub(head.len()).is_some_and(|left| left as u64 == bytes);
            if !is_last || bytes == 0 {
                return Ok(Beginning::Whole(all));
            }
            let response = ReadResponse::decode(&head[PREFIX_BYTES..head.len() - before])?;
            return Ok(Beginning::Data(response, bytes as usize));
        }
        if skip_field(kind, field, &mut fields, prost::encoding::DecodeContext::default()).is_err()
        {
            break;
        }
    }
    // Without bytes, or with something in it that this build does not know.
    let is_long = head.len() == all || head.len() > PREFIX_BYTES + 256;
    Ok(if is_long { Beginning::Whole(all) } else { Beginning::Short })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::v1::TimePoint;

    fn as_grpc(response: &ReadResponse) -> Vec<u8> {
        let body = response.encode_to_vec();
        let mut message = vec![0];
        message.extend_from_slice(&(body.len() as u32).to_be_bytes());
        message.extend_from_slice(&body);
        message
    }

    fn as_sent(response: &ReadResponse) -> Vec<u8> {
        [&message_head(response)[..], &response.data].concat()
    }

    /// Pieces put together again where one continues the other.
    fn joined(pieces: Vec<ReadResponse>, sent: &[ReadResponse]) -> Vec<ReadResponse> {
        let mut pieces = pieces.into_iter();
        let mut whole = Vec::new();
        for response in sent {
            let Some(mut first) = pieces.next() else { break };
            let mut data = first.data.to_vec();
            while data.len() < response.data.len() {
                let Some(next) = pieces.next() else { break };
                assert_eq!(next.offset, first.offset + data.len() as u64);
                assert!(next.times.is_empty(), "times come with the first piece");
                assert!(!first.end_of_segment, "only the last piece ends a segment");
                data.extend_from_slice(&next.data);
                first.end_of_segment = next.end_of_segment;
            }
            first.data = data.into();
            whole.push(first);
        }
        whole.extend(pieces);
        whole
    }

    fn decoded(bytes: &[u8], cuts: &[usize]) -> (Vec<ReadResponse>, bool) {
        let (mut decoder, mut rest, mut out) = (ReadDecoder::default(), bytes, Vec::new());
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let cut = (*cuts.next().unwrap()).min(rest.len());
            decoder.push(Bytes::copy_from_slice(&rest[..cut]));
            rest = &rest[cut..];
            while let Some(response) = decoder.take().unwrap() {
                out.push(response);
            }
        }
        (out, decoder.is_complete())
    }

    fn responses() -> impl Strategy<Value = Vec<ReadResponse>> {
        let data = prop::collection::vec(any::<u8>(), 0..300);
        let time = (any::<u32>(), any::<u64>(), any::<u64>());
        let time = time.prop_map(|(offset, first_micros, last_micros)| TimePoint {
            offset: offset.into(),
            first_micros,
            last_micros,
        });
        let times = prop::collection::vec(time, 0..20);
        let one = (any::<u32>(), data, any::<u32>(), any::<bool>(), times);
        let one = one.prop_map(|(offset, data, length, end_of_segment, times)| ReadResponse {
            offset: offset.into(),
            data: data.into(),
            length: length.into(),
            end_of_segment,
            times,
        });
        prop::collection::vec(one, 1..6)
    }

    proptest! {
        #[test]
        fn messages_of_any_grpc_library_and_our_own_come_out_as_they_went_in(
            sent in responses(),
            cuts in prop::collection::vec(1_usize..100, 1..20),
            own in any::<bool>(),
        ) {
            let bytes: Vec<_> =
                sent.iter().flat_map(|r| if own { as_sent(r) } else { as_grpc(r) }).collect();
            let (pieces, complete) = decoded(&bytes, &cuts);
            prop_assert!(complete);
            prop_assert_eq!(joined(pieces, &sent), sent);
        }

        #[test]
        fn what_is_sent_is_what_the_generated_code_reads(sent in responses()) {
            for response in sent {
                let bytes = as_sent(&response);
                let read = ReadResponse::decode(&bytes[PREFIX_BYTES..]).unwrap();
                prop_assert_eq!(read, response);
            }
        }

        #[test]
        fn noise_is_refused_or_waits_for_more_but_never_panics(
            noise in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut decoder = ReadDecoder::default();
            decoder.push(noise.into());
            while let Ok(Some(_)) = decoder.take() {}
        }
    }

    #[test]
    fn a_message_beyond_the_limit_or_compressed_is_refused() {
        let refused = |prefix: [u8; 5]| {
            let mut decoder = ReadDecoder::default();
            decoder.push(Bytes::copy_from_slice(&prefix));
            decoder.take().unwrap_err()
        };
        let too_large = refused([0, 0x7f, 0, 0, 0]);
        assert_eq!(too_large, ReadDecodeError::TooLarge { bytes: 0x7f00_0000 });
        assert_eq!(refused([1, 0, 0, 0, 1]), ReadDecodeError::Compressed);
    }

    #[test]
    fn lengths_that_lie_or_are_padded_are_read_as_the_generated_code_reads_them() {
        let overflowing = [&[0, 0, 0, 0, 20, 0x12][..], &[0xff; 9], &[1], &[0; 9]].concat();
        let mut decoder = ReadDecoder::default();
        decoder.push(overflowing.into());
        assert!(matches!(decoder.take(), Err(ReadDecodeError::Malformed(_))));
        // Three bytes, their length written in two.
        let padded = [&[0, 0, 0, 0, 8, 0x08, 7, 0x12, 0x83, 0][..], b"abc"].concat();
        let data = Bytes::from_static(b"abc");
        let response = ReadResponse { offset: 7, data, ..Default::default() };
        assert_eq!(decoded(&padded, &[100]), (vec![response], true));
    }

    #[test]
    fn a_message_cut_short_is_not_complete() {
        let response = ReadResponse { data: Bytes::from_static(b"abc"), ..Default::default() };
        let bytes = as_sent(&response);
        for cut in 1..bytes.len() {
            assert!(!decoded(&bytes[..cut], &[7]).1, "{cut}");
        }
    }
}
