//! Everything `bench/run.py` needs besides the gateways: load, the upstream behind them, and the floor to compare with.
//!
//! One process, one thread, one epoll (for HTTP/3 one runtime), so that the measured machine has a core for the gateway
//! and a core for this. The parts that speak a protocol ([`frame`], [`upgrade`], [`responder`], [`echo`],
//! [`handshake`], [`request`]) take and return bytes; [`serve`], [`relay`], [`drive`] and [`idle`] own the sockets.

mod arguments;
mod drive;
mod echo;
mod frame;
mod h2;
mod h3;
mod handshake;
mod idle;
mod link;
mod poll;
mod probe;
mod relay;
mod request;
mod responder;
#[cfg(test)]
mod round_trip;
mod serve;
mod sha1;
mod slots;
mod socket;
mod tcp;
mod terminal;
mod upgrade;
mod wire;

use std::error::Error;
use std::process::ExitCode;

use arguments::Arguments;

/// A result whose error is a sentence for the person who started this.
type Outcome<T> = Result<T, Box<dyn Error>>;

const USAGE: &str = "\
tidegate-load: load, an upstream and a bare relay for benchmarks (IPv4, one thread, JSON lines on standard output)

  serve      [--bind 127.0.0.1:0] [--raw]                  echo WebSockets on any path, answer plain GETs with 200; or
             whatever bytes come
  relay      --to HOST:PORT [--bind 127.0.0.1:0]           pass bytes on without looking at them: the floor
  echo       --target HOST:PORT [--connections 64] [--size 128] [--path /]
  handshake  --target HOST:PORT [--connections 32] [--path /]   connect, upgrade, one echo, Close, end of stream
  request    --target HOST:PORT [--connections 64] [--size 0]   HTTP/1.1 GET on kept connections; 0 is a small answer
  tcp        --target HOST:PORT [--connections 64] [--size 128]   an echo of bytes, from serve --raw
  tcp-life   --target HOST:PORT [--connections 32]              connect, one echo of bytes, end of stream both ways
  idle       --target HOST:PORT [--connections 10000] [--path /]   open, hold until standard input ends; with --h2 so
             many on connections of --streams 50
  probe      --target HOST:PORT [--connections 40] [--size 128] [--rate 400] [--path /]   so many echoes a second; for
             each line on standard input, which says for how many seconds, a report of how long they took

echo and request speak HTTP/2 with --h2 and HTTP/3 with --h3 (and --ca); --streams 8 is the number on each connection.
All of them speak TLS when --ca FILE.PEM names the authority of the server's certificate, which is for localhost.
All but idle and probe take --seconds 3, --warm-up 0.5, --host-header TEXT, and --barrier: print an event and wait
for a line on standard input where the measured time begins and where it ends. Whatever comes back is checked; anything
unexpected ends the run with exit code 1.
";

fn main() -> ExitCode {
    match Arguments::from_environment().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::complain(&format!("tidegate-load: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Outcome<()> {
    match arguments.command.as_str() {
        "serve" => serve::command(arguments),
        "relay" => relay::command(arguments),
        "echo" => echo::command(arguments),
        "handshake" => handshake::command(arguments),
        "request" => request::command(arguments),
        "tcp" => tcp::command(arguments),
        "tcp-life" => tcp::command_life(arguments),
        "idle" => idle::command(arguments),
        "probe" => probe::command(arguments),
        "help" | "--help" | "-h" => terminal::say(USAGE.trim_end()),
        other => Err(format!("unknown command {other:?}\n\n{USAGE}").into()),
    }
}
