//! The first bytes of a connection: they tell HTTP/2 (gRPC) from HTTP/1, and that someone is
//! there at all.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What an HTTP/2 client says first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// A connection whose first bytes were looked at and will be read again.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) protocol: Protocol,
    pub(super) stream: Rewound,
}

/// Reads until the protocol is certain; `None` when the peer left before. Sets no deadline.
pub(super) async fn read(mut stream: TcpStream) -> io::Result<Option<Opened>> {
    let mut first = [0; PREFACE.len()];
    let mut length = 0;
    let protocol = loop {
        let count = stream.read(&mut first[length..]).await?;
        if count == 0 {
            return Ok(None);
        }
        length += count;
        if first[..length] != PREFACE[..length] {
            break Protocol::Http1;
        }
        if length == PREFACE.len() {
            break Protocol::Http2;
        }
    };
    let first = Bytes::copy_from_slice(&first[..length]);
    let stream = Rewound { first, stream, turn: 0 };
    Ok(Some(Opened { protocol, stream }))
}

/// Bytes that one connection reads before others get their turn.
const TURN_BYTES: usize = 512 * 1024;

/// A stream that gives its first bytes once more, and its thread back to others after each turn:
/// a connection on which bytes come without end would not leave it otherwise.
#[derive(Debug)]
pub(super) struct Rewound {
    first: Bytes,
    stream: TcpStream,
    /// Bytes read in this turn.
    turn: usize,
}

impl Rewound {
    /// Leaves the event loop, for another one to be entered.
    pub(super) fn leave(self) -> io::Result<Left> {
        Ok(Left { first: self.first, stream: self.stream.into_std()? })
    }
}

/// A stream between two event loops.
#[derive(Debug)]
pub(super) struct Left {
    first: Bytes,
    stream: std::net::TcpStream,
}

impl Left {
    /// Enters the event loop of the caller.
    pub(super) fn enter(self) -> io::Result<Rewound> {
        Ok(Rewound { first: self.first, stream: TcpStream::from_std(self.stream)?, turn: 0 })
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            if self.turn >= TURN_BYTES {
                self.turn = 0;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let before = buffer.filled().len();
            let read = Pin::new(&mut self.stream).poll_read(context, buffer);
            self.turn = match read {
                Poll::Ready(_) => self.turn + buffer.filled().len() - before,
                Poll::Pending => 0,
            };
            return read;
        }
        let count = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..count]);
        self.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
