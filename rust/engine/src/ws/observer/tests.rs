use super::*;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn server() -> Observer {
    Observer::new(Rules { from: From::Server, deflate: false, max_message: None })
}

fn client() -> Observer {
    Observer::new(Rules { from: From::Client, deflate: false, max_message: None })
}

fn seen(forward: usize, event: Event) -> Seen {
    Seen { forward, event }
}

fn refused(observer: &mut Observer, input: &[u8]) -> Violation {
    match observer.observe(input, Stop::Never) {
        Seen { forward: 0, event: Event::Violation(violation) } => violation,
        other => panic!("{input:02x?} gave {other:?}"),
    }
}

#[test]
fn whole_messages_pass() {
    let mut observer = server();
    assert_eq!(observer.observe(b"\x81\x05Hello\x82\x01x\x81\x00", Stop::Never), seen(12, Event::More));
    let expected = Counts { frames: 3, messages_text: 2, messages_binary: 1, bytes: 6, ..Counts::default() };
    assert_eq!(*observer.counts(), expected);
    assert!(observer.at_message_boundary());
}

#[test]
fn a_header_waits_until_it_is_whole_and_payload_does_not() {
    let mut observer = client();
    assert_eq!(observer.observe(&[0x81, 0x85, 1, 2, 3], Stop::Never), seen(0, Event::More));
    assert_eq!(observer.observe(&[0x81, 0x85, 1, 2, 3, 4], Stop::Never), seen(6, Event::More));
    assert!(!observer.at_frame_boundary());
    assert_eq!(observer.observe(b"abc", Stop::Never), seen(3, Event::More));
    assert_eq!(observer.observe(b"de\x81", Stop::Never), seen(2, Event::More));
    assert_eq!(observer.counts().messages_text, 1);
}

#[test]
fn control_frames_are_shown_whole_and_unmasked() {
    let mut observer = client();
    let mut frames = Vec::new();
    crate::ws::frame::write_ping(&mut frames, Some(KEY), b"Hello");
    crate::ws::frame::write_close(&mut frames, Some(KEY), 4001, "bye");
    assert_eq!(observer.observe(&frames[..10], Stop::Never), seen(0, Event::More));
    let Event::Control(ping) = observer.observe(&frames, Stop::Never).event else { panic!("no ping") };
    assert_eq!((ping.opcode, ping.size, ping.code, ping.payload()), (ControlOpcode::Ping, 11, None, &b"Hello"[..]));
    let Event::Control(close) = observer.observe(&frames[11..], Stop::Never).event else { panic!("no close") };
    assert_eq!((close.opcode, close.code, &close.payload()[2..]), (ControlOpcode::Close, Some(4001), &b"bye"[..]));
    assert_eq!((observer.counts().pings, observer.counts().closes, observer.counts().frames), (1, 1, 2));
}

#[test]
fn control_frames_may_come_between_fragments() {
    let mut observer = server();
    let input = b"\x01\x03Hel\x8a\x00\x80\x02lo";
    let Seen { forward: 5, event: Event::Control(pong) } = observer.observe(input, Stop::Never) else { panic!() };
    assert!(observer.at_frame_boundary() && !observer.at_message_boundary());
    assert_eq!(observer.observe(&input[5 + pong.size..], Stop::Never), seen(4, Event::More));
    assert_eq!((observer.counts().messages_text, observer.counts().bytes), (1, 5));
}

#[test]
fn stops_where_asked() {
    let input = b"\x01\x03Hel\x80\x02lo\x81\x01x";
    assert_eq!(server().observe(input, Stop::AtFrame), seen(5, Event::Boundary));
    assert_eq!(server().observe(input, Stop::AtMessage), seen(9, Event::Boundary));
    let mut observer = server();
    assert_eq!(observer.observe(&input[..4], Stop::AtMessage), seen(4, Event::More));
    assert_eq!(observer.observe(&input[4..], Stop::AtFrame), seen(1, Event::Boundary));
    assert_eq!(observer.observe(&input[5..], Stop::AtMessage), seen(4, Event::Boundary));
    assert_eq!(observer.observe(b"", Stop::AtFrame), seen(0, Event::More));
}

#[test]
fn what_breaks_the_rules() {
    for (input, violation) in [
        (&b"\xc1\x00"[..], Violation::ReservedBits),
        (b"\xa1\x00", Violation::ReservedBits),
        (b"\x83\x00", Violation::ReservedOpcode),
        (b"\x82\x7e\x00\x7d", Violation::Length),
        (b"\x81\x80\x00\x00\x00\x00", Violation::Masked),
        (b"\x80\x00", Violation::Continuation),
        (b"\x09\x00", Violation::FragmentedControl),
        (b"\x89\x7e\x00\x7e", Violation::LongControl),
        (b"\xc9\x00", Violation::ReservedBits),
        (b"\x88\x01\x03", Violation::BadClose),
        (b"\x88\x02\x03\xed", Violation::BadClose),
        (b"HTTP/1.1 200 OK\r\n", Violation::ReservedBits),
    ] {
        assert_eq!(refused(&mut server(), input), violation, "{input:02x?}");
    }
    assert_eq!(refused(&mut client(), b"\x81\x00"), Violation::Unmasked);
    assert_eq!(refused(&mut client(), b"GET / HTTP/1.1\r\n"), Violation::ReservedOpcode);
}

#[test]
fn everything_valid_before_a_violation_may_go() {
    let mut observer = server();
    let broken = observer.observe(b"\x01\x03Hel\x81\x02lo", Stop::Never);
    assert_eq!(broken, seen(5, Event::Violation(Violation::Interleaved)));
    assert_eq!(observer.counts().messages_text, 0);
}

#[test]
fn compression_marks_only_the_first_frame_of_a_message() {
    let rules = Rules { from: From::Server, deflate: true, max_message: None };
    assert_eq!(Observer::new(rules).observe(b"\x41\x01x\x80\x01y", Stop::Never), seen(6, Event::More));
    let mut observer = Observer::new(rules);
    let broken = observer.observe(b"\x41\x01x\xc0\x01y", Stop::Never);
    assert_eq!(broken, seen(3, Event::Violation(Violation::ReservedBits)));
    assert_eq!(refused(&mut Observer::new(rules), b"\xc9\x00"), Violation::ReservedBits);
}

#[test]
fn size_is_judged_on_the_header_and_over_all_fragments() {
    let rules = |max| Rules { from: From::Server, deflate: false, max_message: Some(max) };
    assert_eq!(refused(&mut Observer::new(rules(4)), b"\x81\x05"), Violation::TooBig);
    let mut observer = Observer::new(rules(4));
    assert_eq!(observer.observe(b"\x81\x04abcd\x81\x04abcd", Stop::Never), seen(12, Event::More));
    let broken = observer.observe(b"\x01\x03abc\x80\x02de", Stop::Never);
    assert_eq!(broken, seen(5, Event::Violation(Violation::TooBig)));
    assert_eq!(Violation::TooBig.close_code(), 1009);
    let mut observer = Observer::new(rules(u64::MAX - 1));
    observer.announced = u64::MAX - 2;
    observer.fragmented = true;
    assert_eq!(refused(&mut observer, b"\x80\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"), Violation::TooBig);
}
