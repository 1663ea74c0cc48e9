//! The answers to one read, each piece of bytes as it arrived.
//!
//! This is a gRPC call like any other, but for the messages: the generated code would copy every
//! byte of them once more to have each message in one piece.

use std::future::poll_fn;

use http_body_util::BodyExt as _;
use proto::read_stream::{ReadDecodeError, ReadDecoder};
use proto::v1::{ReadRequest, ReadResponse};
use tonic::body::Body;
use tonic::codec::Codec as _;
use tonic::codegen::{Service as _, http};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

/// The path of `Read`.
const READ_PATH: &str = "/braid.v1.SegmentStore/Read";

/// Why there is no next answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// The call ended; another one may go better.
    Lost(Status),
    /// What the server sends cannot be read, and could not the next time.
    Malformed(ReadDecodeError),
}

impl From<ReadDecodeError> for Failed {
    fn from(error: ReadDecodeError) -> Self {
        Failed::Malformed(error)
    }
}

/// The messages of one read.
#[derive(Debug)]
pub(super) struct Answers {
    body: Body,
    decoder: ReadDecoder,
}

impl Answers {
    /// Asks, and returns once the server has begun to answer.
    pub(super) async fn request(
        mut channel: Channel,
        request: ReadRequest,
    ) -> Result<Self, Status> {
        poll_fn(|cx| channel.poll_ready(cx)).await.map_err(failed)?;
        let response =
            channel.call(http_request(channel_request(request))).await.map_err(failed)?;
        let (head, body) = response.into_parts();
        if let Some(status) = Status::from_header_map(&head.headers)
            && status.code() != Code::Ok
        {
            return Err(status);
        }
        if head.status != http::StatusCode::OK {
            let message = format!("the server answered with HTTP status {}", head.status);
            return Err(Status::unavailable(message));
        }
        Ok(Self { body, decoder: ReadDecoder::default() })
    }

    /// The next answer, or a piece of one; `None` once the server has said that there are no more.
    /// Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<ReadResponse>, Failed> {
        loop {
            if let Some(response) = self.decoder.take()? {
                return Ok(Some(response));
            }
            let Some(frame) = self.body.frame().await else {
                let status = Status::unavailable("the server's answer ended without a status");
                return Err(Failed::Lost(status));
            };
            match frame.map_err(Failed::Lost)?.into_data() {
                Ok(data) => self.decoder.push(data),
                Err(other) => match other.into_trailers() {
                    Ok(trailers) => {
                        return self.end(&trailers).map(|()| None).map_err(Failed::Lost);
                    }
                    // A kind of frame that this build does not know says nothing to it.
                    Err(_) => continue,
                },
            }
        }
    }

    fn end(&self, trailers: &http::HeaderMap) -> Result<(), Status> {
        match Status::from_header_map(trailers) {
            Some(status) if status.code() == Code::Ok && self.decoder.is_complete() => Ok(()),
            Some(status) if status.code() != Code::Ok => Err(status),
            _ => Err(Status::unavailable("the server's answer was cut short")),
        }
    }
}

fn failed(error: tonic::transport::Error) -> Status {
    Status::from_error(error.into())
}

/// The request as the one message of a body.
fn channel_request(request: ReadRequest) -> Body {
    let encoder = ProstCodec::<ReadRequest, ()>::default().encoder();
    let message = futures::stream::once(std::future::ready(Ok(request)));
    Body::new(tonic::codec::EncodeBody::new_client(encoder, message, None, None))
}

fn http_request(body: Body) -> http::Request<Body> {
    let mut request = http::Request::new(body);
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    // The channel puts scheme and authority in front.
    *request.uri_mut() = http::Uri::from_static(READ_PATH);
    let headers = request.headers_mut();
    headers.insert(http::header::TE, http::HeaderValue::from_static("trailers"));
    let kind = http::HeaderValue::from_static("application/grpc");
    headers.insert(http::header::CONTENT_TYPE, kind);
    request
}
