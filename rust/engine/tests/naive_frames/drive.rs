//! Presents a stream to the observer in pieces, as a relay would, and keeps book of what it says.

use tidegate_engine::ws::{ControlOpcode, Event, Observer, Rules, Stop};

use super::naive::Verdict;

/// Runs the observer over `stream`, cut into pieces of the given sizes (the last one repeats; 0 counts as 1).
/// `stop` is asked before each call.
pub fn drive(stream: &[u8], rules: Rules, pieces: &[usize], mut stop: impl FnMut() -> Stop) -> Verdict {
    let mut observer = Observer::new(rules);
    let mut verdict = Verdict::default();
    let (mut arrived, mut pieces) = (0, pieces.iter().copied());
    let mut size = usize::MAX;
    while arrived < stream.len() {
        size = pieces.next().unwrap_or(size).max(1);
        arrived = arrived.saturating_add(size).min(stream.len());
        let ended = take(&mut observer, &stream[..arrived], &mut verdict, &mut stop);
        assert!(ended || arrived - verdict.forward <= Observer::LONGEST_TAIL, "a tail too long to keep");
        if ended {
            break;
        }
    }
    verdict.counts = *observer.counts();
    verdict
}

/// Observes what has arrived; says whether the direction has ended.
fn take(observer: &mut Observer, arrived: &[u8], verdict: &mut Verdict, stop: &mut impl FnMut() -> Stop) -> bool {
    loop {
        let asked = stop();
        let seen = observer.observe(&arrived[verdict.forward..], asked);
        verdict.forward += seen.forward;
        match seen.event {
            Event::More => return false,
            Event::Boundary => {
                assert!(seen.forward > 0 && observer.at_frame_boundary(), "a stop without progress");
                match asked {
                    Stop::Never => panic!("a stop that nobody asked for"),
                    Stop::AtFrame => verdict.frame_ends.push(verdict.forward),
                    Stop::AtMessage => {
                        assert!(observer.at_message_boundary());
                        verdict.message_ends.push(verdict.forward);
                    }
                }
            }
            Event::Control(control) => {
                assert!(observer.at_frame_boundary());
                let opcode = match control.opcode {
                    ControlOpcode::Close => 8,
                    ControlOpcode::Ping => 9,
                    ControlOpcode::Pong => 10,
                };
                let code = control.payload().first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
                assert_eq!(control.code, code.filter(|_| opcode == 8));
                verdict.controls.push((verdict.forward, opcode, control.payload().to_vec()));
                verdict.forward += control.size;
                if opcode == 8 {
                    return true;
                }
            }
            Event::Later | Event::Skip | Event::Skipped | Event::SkipControl { .. } => panic!("there is no gate"),
            Event::Violation(violation) => {
                verdict.violation = Some(violation);
                return true;
            }
        }
    }
}
