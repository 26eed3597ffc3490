//! What finding a route costs with 10 routes and with 10,000: `cargo bench --bench routing`.
//!
//! 1 host or 1,000, each with 10 paths; 5 % of the routes are regexes and 5 % ask for a header. 5 % of ten is half a
//! route, so there are two tables of ten, one with a regex and a header and one without, and their mean counts.
//! Requests name all routes in random order. Their texts stand close together and are asked for in the same number in
//! all runs, so that the difference is that of the tables.

use std::hint::black_box;
use std::ops::Range;
use std::time::Instant;

use tidegate_engine::http::Fields;
use tidegate_engine::route::{Request, RouteTable, clean};
use tidegate_engine::snapshot::{
    Access, Action, Admission, Drain, FORMAT, HostMatch, Http2, HttpVersion, Listener, ListenerLimits, Liveness, Match,
    NamedTest, OnChange, PathMatch, Place, Respond, Route, RouteListener, Snapshot, ValueTest,
};

const REQUESTS: usize = 10_000;
const ROUNDS: usize = 201;

fn main() {
    let benches = [Bench::new(0..1), Bench::new(1..2), Bench::new(0..1000)];
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    // By turns, so that what else the machine does falls on all.
    for _ in 0..ROUNDS {
        for (bench, times) in benches.iter().zip(&mut times) {
            times.push(bench.run());
        }
    }
    let [special, plain, many] = times.map(least);
    let few = (special + plain) / 2.0;
    print(&format!("10 routes: {few:.1} ns per lookup"));
    print(&format!("10,000 routes: {many:.1} ns per lookup"));
    print(&format!("ratio: {:.2}", many / few));
}

#[allow(clippy::print_stdout)]
fn print(line: &str) {
    println!("{line}");
}

/// The best round: what else the machine does only adds.
fn least(times: Vec<f64>) -> f64 {
    times.into_iter().fold(f64::INFINITY, f64::min)
}

struct Bench {
    table: RouteTable,
    /// Host and path, one behind the other.
    texts: String,
    /// The lengths of each request's host and path; small, as all this passes through the caches that hold the table.
    requests: Vec<(u8, u8)>,
    fields: Fields,
}

impl Bench {
    fn new(hosts: Range<usize>) -> Self {
        let first = hosts.start * 10;
        let count = hosts.len() * 10;
        let snapshot = snapshot((first..first + count).map(route).collect());
        let table = RouteTable::build(&snapshot).unwrap_or_else(|faults| panic!("{faults:?}"));
        let mut fields = Fields::new();
        for (name, value) in [("Host", "x"), ("User-Agent", "bench"), ("Accept", "*/*"), ("X-Team", "blue")] {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        let mut bench = Self { table, texts: String::new(), requests: vec![], fields };
        let mut seed = 1_u64;
        for _ in 0..REQUESTS {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bench.add(first, (seed >> 33) as usize % count);
        }
        bench
    }

    /// Adds a request for a route of the table, whose first is route `first` of all.
    fn add(&mut self, first: usize, route: usize) {
        let (host, path) = (host(first + route), format!("{}/room", path(route)));
        assert_eq!(self.find(host.as_bytes(), path.as_bytes()), Some(route), "{host}{path}");
        self.requests.push((host.len() as u8, path.len() as u8));
        self.texts.extend([host, path]);
    }

    /// Nanoseconds per lookup.
    fn run(&self) -> f64 {
        let begun = Instant::now();
        let mut rest = self.texts.as_bytes();
        for (host, path) in &self.requests {
            let (host, behind) = rest.split_at(usize::from(*host));
            let (path, behind) = behind.split_at(usize::from(*path));
            black_box(self.find(host, path));
            rest = behind;
        }
        begun.elapsed().as_nanos() as f64 / REQUESTS as f64
    }

    fn find(&self, host: &[u8], path: &[u8]) -> Option<usize> {
        let path = clean(path).ok()?;
        let request = Request { host, path: &path, query: b"", method: b"GET", fields: &self.fields };
        self.table.find(0, &request).map(|found| found.route)
    }
}

fn host(route: usize) -> String {
    format!("tenant-{}.apps.example.com", route / 10)
}

fn path(route: usize) -> String {
    format!("/service-{}", route % 10)
}

/// Of the twenty routes of two hosts one is a regex and one asks for a header.
fn route(index: usize) -> Route {
    let path = path(index);
    let is_regex = index % 20 == 3;
    let headers = if index % 20 == 7 { vec![header()] } else { vec![] };
    let path = if is_regex { PathMatch::Regex(format!("{path}/.*")) } else { PathMatch::Prefix(path) };
    Route {
        name: format!("route-{index}"),
        place: Place { file: String::new(), line: 0 },
        listeners: vec![RouteListener { listener: 0, websocket: 0, body_limit: None }],
        matches: Match { hosts: vec![HostMatch::Exact(host(index))], path, methods: vec![], headers, query: vec![] },
        priority: 0,
        fall_through: false,
        action: Action::Respond(Respond::Echo),
        on_change: OnChange::Keep,
        admission: Admission::default(),
    }
}

fn header() -> NamedTest {
    NamedTest { name: "x-team".to_owned(), test: ValueTest::Exact("blue".to_owned()) }
}

fn snapshot(routes: Vec<Route>) -> Snapshot {
    let listener = Listener {
        name: "edge".to_owned(),
        place: Place { file: String::new(), line: 0 },
        binds: vec![],
        tls: None,
        http: vec![HttpVersion::H1],
        http2: Http2 { streams: 1, window: 1, connection_window: 1 },
        proxy_protocol: vec![],
        access: Access { allow: None, deny: vec![] },
        tcp: None,
        trusted_proxies: vec![],
        liveness: Liveness { keepalive: None, user_timeout: None },
        limits: ListenerLimits { connections: None, connection_rate: None, headers: 32768, tls_handshakes: 1 },
        admission: Admission::default(),
        head_timeout: 1,
        body_timeout: None,
        keep_alive: 1,
        tls_timeout: 1,
        tls_queue: 1,
    };
    Snapshot {
        format: FORMAT,
        listeners: vec![listener],
        routes,
        upstreams: vec![],
        websockets: vec![],
        access_log: None,
        drain: Drain { delay: 0, window: 0, timeout: 0 },
    }
}
