//! `request`: plain HTTP/1.1 GETs, one after the other on kept connections.

use crate::Outcome;
use crate::arguments::Arguments;
use crate::drive::{Conversation, Plan, Report, drive};
use crate::responder::BODY;
use crate::upgrade::{Place, head_length, head_text, header, names};

pub fn command(mut arguments: Arguments) -> Outcome<()> {
    let plan = Plan::take(&mut arguments, 64)?;
    arguments.finish()?;
    run(&plan)?.say()
}

pub fn run(plan: &Plan) -> Outcome<Report> {
    drive(plan, |dialler| Ok((dialler.connect()?, Requests::new(&plan.place))))
}

struct Requests {
    request: String,
    kept: Vec<u8>,
}

impl Requests {
    fn new(Place { host, path }: &Place) -> Self {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\nUser-Agent: tidegate-load\r\n\r\n");
        Self { request, kept: Vec::new() }
    }
}

impl Conversation for Requests {
    fn begin(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.request.as_bytes());
    }

    fn receive(&mut self, input: &[u8], _: &mut Vec<u8>) -> Outcome<bool> {
        self.kept.extend_from_slice(input);
        let Some(length) = head_length(&self.kept)? else { return Ok(false) };
        check_head(head_text(&self.kept[..length])?)?;
        let body = &self.kept[length..];
        if !BODY.as_bytes().starts_with(body) {
            return Err("an answer with another body than the upstream's".into());
        }
        let complete = body.len() == BODY.len();
        if complete {
            self.kept.clear();
        }
        Ok(complete)
    }
}

fn check_head(head: &str) -> Outcome<()> {
    let length = header(head, "content-length").and_then(|length| length.parse().ok());
    let kept = !names(head, "connection", "close");
    match head.starts_with("HTTP/1.1 200 ") && length == Some(BODY.len()) && kept {
        true => Ok(()),
        false => Err(format!("not the answer expected: {head:?}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(answer: &str) -> Outcome<bool> {
        let place = Place { host: "a".into(), path: "/".into() };
        Requests::new(&place).receive(answer.as_bytes(), &mut Vec::new())
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
