//! The endpoint's side of one exchange, over whatever version of HTTP it is reached, as `client` is the other side.
//!
//! Over HTTP/1.1 the exchange has a whole connection for itself, and the request's head goes in front of its body. Over
//! HTTP/2 and HTTP/3 it has a stream: the head has opened it, and the head of the answer makes a byte stream of it.

use std::task::{Context, Poll, ready};

use super::pump::Sink;
use crate::error::{Refusal, refusal};
use crate::http::{Method, ResponseHead};
use crate::upstream::{Awaited, Crossing, HeadError, Link, Opened, Question, ResponseReader};

/// An endpoint that is asked.
pub enum Origin {
    H1 { link: Link, reader: ResponseReader },
    Crossing(Box<Asked>),
}

/// A stream of HTTP/2 or HTTP/3.
pub struct Asked {
    is_reused: bool,
    /// Until the answer's head has come.
    awaited: Option<Awaited>,
    /// From then on.
    link: Option<Link>,
}

impl Origin {
    /// Over HTTP/1.1 what is written to the sink asks.
    pub fn h1(link: Link) -> Self {
        Self::H1 { link, reader: ResponseReader::default() }
    }

    /// Asks on a stream; `ended`: no body follows.
    ///
    /// # Errors
    /// The refusal for the client.
    pub fn crossing(crossing: Crossing, question: &Question<'_>, ended: bool) -> Result<Self, Refusal> {
        let is_reused = crossing.place.is_reused;
        let awaited = Some(crossing.open(question, ended)?);
        Ok(Self::Crossing(Box::new(Asked { is_reused, awaited, link: None })))
    }

    /// Whether its connection carried others before: its peer may have closed it meanwhile.
    pub fn is_reused(&self) -> bool {
        match self {
            Self::H1 { link, .. } => link.reused,
            Self::Crossing(asked) => asked.is_reused,
        }
    }

    /// Where the request's body goes.
    pub fn sink(&mut self) -> Sink<'_> {
        match self {
            Self::H1 { link, .. } => Sink::Stream(&mut link.stream),
            Self::Crossing(asked) => match (&mut asked.awaited, &mut asked.link) {
                (Some(Awaited { opened: Opened::H2(opened), .. }), _) => Sink::H2(&mut opened.send),
                (Some(Awaited { opened: Opened::H3(opened), .. }), _) => Sink::H3(&mut opened.send),
                (None, Some(link)) => Sink::of(&mut link.stream),
                (None, None) => Sink::Gone,
            },
        }
    }

    /// The next head: interim ones (1xx) come one by one like any other.
    pub fn poll_head(&mut self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<ResponseHead, HeadError>> {
        match self {
            Self::H1 { link, reader } => reader.poll_head(cx, &mut link.stream, *method == Method::Head),
            Self::Crossing(asked) => asked.poll_head(cx),
        }
    }

    /// What the answer comes over, once its head has come, and what was read behind that.
    ///
    /// # Errors
    /// The refusal for the client, where it has not.
    pub fn answered(self) -> Result<(Link, ResponseReader), Refusal> {
        match self {
            Self::H1 { link, reader } => Ok((link, reader)),
            Self::Crossing(asked) => Ok((asked.link.ok_or(refusal::UPSTREAM_LOST)?, ResponseReader::default())),
        }
    }
}

impl Asked {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, HeadError>> {
        let Some(awaited) = &mut self.awaited else { return Poll::Pending };
        let head = ready!(awaited.poll_head(cx))?;
        if !(100..200).contains(&head.status) {
            self.link = self.awaited.take().and_then(Awaited::into_link);
        }
        Poll::Ready(Ok(head))
    }
}
