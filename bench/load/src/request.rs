//! `request`: plain GETs, one after the other on kept connections, or on the streams of some.

use crate::Outcome;
use crate::arguments::Arguments;
use crate::drive::{Conversation, Plan, Report, Version, drive};
use crate::responder::body;
use crate::upgrade::{Place, head_length, head_text, header, names};
use crate::{h2, h3};

pub fn command(mut arguments: Arguments) -> Outcome<()> {
    let mut plan = Plan::take(&mut arguments, 64)?;
    let size = arguments.take("size", 0)?;
    let version = plan.take_version(&mut arguments)?;
    arguments.finish()?;
    match version {
        Version::H1 => run(&plan, size)?.say(),
        Version::H2 { streams } => run_streams(&plan, streams, size)?.say(),
        Version::H3 { streams } => h3::run_requests(&plan, streams, size)?.say(),
    }
}

/// `size` is that of the body asked for; 0 asks for the upstream's usual small one.
pub fn run(plan: &Plan, size: usize) -> Outcome<Report> {
    let path = if size == 0 { plan.place.path.clone() } else { format!("/bytes/{size}") };
    let place = Place { host: plan.place.host.clone(), path };
    drive(plan, |dialler| Ok((dialler.connect()?, Requests::new(&place, size))))
}

/// Over HTTP/2, so many at once on each connection.
pub fn run_streams(plan: &Plan, streams: usize, size: usize) -> Outcome<Report> {
    drive(plan, |dialler| {
        let mut wire = dialler.connect()?;
        let requests = h2::Requests::open(&mut wire, &plan.place, streams, size)?;
        Ok((wire, requests))
    })
}

struct Requests {
    request: String,
    body: Vec<u8>,
    kept: Vec<u8>,
}

impl Requests {
    fn new(Place { host, path }: &Place, size: usize) -> Self {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\nUser-Agent: tidegate-load\r\n\r\n");
        Self { request, body: body(size), kept: Vec::new() }
    }
}

impl Conversation for Requests {
    fn begin(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.request.as_bytes());
    }

    fn receive(&mut self, input: &[u8], _: &mut Vec<u8>) -> Outcome<bool> {
        self.kept.extend_from_slice(input);
        let Some(length) = head_length(&self.kept)? else { return Ok(false) };
        check_head(head_text(&self.kept[..length])?, self.body.len())?;
        let body = &self.kept[length..];
        if !self.body.starts_with(body) {
            return Err("an answer with another body than the upstream's".into());
        }
        let complete = body.len() == self.body.len();
        if complete {
            self.kept.clear();
        }
        Ok(complete)
    }
}

fn check_head(head: &str, expected: usize) -> Outcome<()> {
    let length = header(head, "content-length").and_then(|length| length.parse().ok());
    let kept = !names(head, "connection", "close");
    match head.starts_with("HTTP/1.1 200 ") && length == Some(expected) && kept {
        true => Ok(()),
        false => Err(format!("not the answer expected: {head:?}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::responder::BODY;

    fn received(answer: &str) -> Outcome<bool> {
        let place = Place { host: "a".into(), path: "/".into() };
        Requests::new(&place, 0).receive(answer.as_bytes(), &mut Vec::new())
    }

    #[test]
    fn only_the_whole_right_answer_completes() {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len());
        assert!(received(&answer).unwrap());
        assert!(!received(&answer[..answer.len() - 1]).unwrap());
        assert!(received(&format!("{answer}x")).is_err());
        for (good, bad) in
            [("200", "502"), ("Content-Length", "X"), ("tide", "tile"), ("\r\n\r\n", "\r\nConnection: close\r\n\r\n")]
        {
            assert!(received(&answer.replace(good, bad)).is_err(), "{bad}");
        }
    }
}
