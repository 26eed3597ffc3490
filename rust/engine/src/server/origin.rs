//! The endpoint's side of one exchange, over whatever version of HTTP it is reached, as `client` is the other side.
//!
//! Over HTTP/1.1 the exchange has a whole connection for itself, and the request's head goes in front of its body. Over
//! HTTP/2 it has a stream: the head has opened it, and the head of the answer makes a byte stream of it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use h2::client::ResponseFuture;

use super::pump::Sink;
use crate::error::{Refusal, refusal};
use crate::http::{Method, ResponseHead};
use crate::io::Stream;
use crate::io::h2::H2;
use crate::upstream::{Crossing, HeadError, Link, Question, ResponseReader, no_answer, response_head};

/// An endpoint that is asked.
pub enum Origin {
    H1 { link: Link, reader: ResponseReader },
    H2(Box<Asked>),
}

/// A stream of HTTP/2.
pub struct Asked {
    is_reused: bool,
    /// Until the answer's head has come.
    open: Option<Open>,
    /// From then on.
    link: Option<Link>,
}

struct Open {
    crossing: Crossing,
    response: ResponseFuture,
    send: SendStream<Bytes>,
}

impl Origin {
    /// Over HTTP/1.1 what is written to the sink asks.
    pub fn h1(link: Link) -> Self {
        Self::H1 { link, reader: ResponseReader::default() }
    }

    /// Asks over HTTP/2; `ended`: no body follows.
    ///
    /// # Errors
    /// The refusal for the client.
    pub fn h2(crossing: Crossing, question: &Question<'_>, ended: bool) -> Result<Self, Refusal> {
        let (response, send) = crossing.open(question, ended)?;
        let is_reused = crossing.place.is_reused;
        Ok(Self::H2(Box::new(Asked { is_reused, open: Some(Open { crossing, response, send }), link: None })))
    }

    /// Whether its connection carried others before: its peer may have closed it meanwhile.
    pub fn is_reused(&self) -> bool {
        match self {
            Self::H1 { link, .. } => link.reused,
            Self::H2(asked) => asked.is_reused,
        }
    }

    /// Where the request's body goes.
    pub fn sink(&mut self) -> Sink<'_> {
        match self {
            Self::H1 { link, .. } => Sink::Stream(&mut link.stream),
            Self::H2(asked) => match (&mut asked.open, &mut asked.link) {
                (Some(open), _) => Sink::H2(&mut open.send),
                (None, Some(link)) => Sink::of(&mut link.stream),
                (None, None) => Sink::Gone,
            },
        }
    }

    /// The next head: interim ones (1xx) come one by one like any other.
    pub fn poll_head(&mut self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<ResponseHead, HeadError>> {
        match self {
            Self::H1 { link, reader } => reader.poll_head(cx, &mut link.stream, *method == Method::Head),
            Self::H2(asked) => asked.poll_head(cx, method),
        }
    }

    /// What the answer comes over, once its head has come, and what was read behind that.
    ///
    /// # Errors
    /// The refusal for the client, where it has not.
    pub fn answered(self) -> Result<(Link, ResponseReader), Refusal> {
        match self {
            Self::H1 { link, reader } => Ok((link, reader)),
            Self::H2(asked) => Ok((asked.link.ok_or(refusal::UPSTREAM_LOST)?, ResponseReader::default())),
        }
    }
}

impl Asked {
    fn poll_head(&mut self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<ResponseHead, HeadError>> {
        let Some(open) = &mut self.open else { return Poll::Pending };
        if let Poll::Ready(Some(Ok(interim))) = open.response.poll_informational(cx) {
            return Poll::Ready(Ok(response_head(&interim, true, method.as_bytes())));
        }
        let answered = ready!(Pin::new(&mut open.response).poll(cx));
        let Some(Open { crossing, send, .. }) = self.open.take() else { return Poll::Pending };
        crossing.place.answered();
        let response = answered.map_err(|error| no_answer(&error))?;
        let head = response_head(&response, response.body().is_end_stream(), method.as_bytes());
        let Crossing { place, permit, .. } = crossing;
        let stream = H2::new(send, response.into_body()).with(place);
        self.link = Some(Link { stream: Stream::H2(Box::new(stream)), permit, tls: None, reused: self.is_reused });
        Poll::Ready(Ok(head))
    }
}
