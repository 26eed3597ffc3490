//! The route table against the plainest matcher there is: all routes in one sorted list, tried one by one. Names,
//! paths and values come from few letters, so that they collide.

use proptest::prelude::*;
use tidegate_engine::http::Fields;
use tidegate_engine::route::{Request, RouteTable, clean};
use tidegate_engine::snapshot::{
    Access, Action, Admission, Drain, FORMAT, HostMatch, Http2, HttpVersion, Listener, ListenerLimits, Liveness, Match,
    NamedTest, OnChange, PathMatch, Place, Respond, Route, RouteListener, Snapshot, ValueTest,
};

#[derive(Clone, Debug)]
struct Asked {
    host: String,
    path: String,
    query: String,
    method: String,
    headers: Vec<(String, String)>,
}

fn host_name() -> impl Strategy<Value = String> {
    prop_oneof!["a(\\.a)?", "[ab](\\.[ab]){0,3}"]
}

fn host_match() -> impl Strategy<Value = HostMatch> {
    prop_oneof![
        2 => Just(HostMatch::Any),
        4 => host_name().prop_map(HostMatch::Exact),
        2 => host_name().prop_map(|name| HostMatch::Suffix(format!(".{name}"))),
        1 => host_name().prop_map(|name| HostMatch::Prefix(format!("{name}."))),
    ]
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        1 => Just(PathMatch::Any),
        4 => path().prop_map(PathMatch::Exact),
        4 => path().prop_map(PathMatch::Prefix),
        3 => path().prop_map(PathMatch::StartsWith),
        2 => prop_oneof!["/\\.\\*", "/a\\.\\*", "/\\(a\\|b\\)", "/b\\(/\\.\\*\\)\\?", "/\\[a-b\\]\\{1,2\\}"]
            .prop_map(PathMatch::Regex),
    ]
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![Just("/".to_owned()), "/a?(/a?)?", "/[ab]?(/[ab]{0,2}|%2[Ff]|%6[12]){0,2}"]
}

fn value_test() -> impl Strategy<Value = ValueTest> {
    let leaf = prop_oneof![
        "[ab]".prop_map(ValueTest::Exact),
        "[ab]{0,2}".prop_map(ValueTest::Prefix),
        any::<bool>().prop_map(ValueTest::Present),
        Just(ValueTest::Regex("a|b.".to_owned())),
    ];
    leaf.prop_recursive(2, 3, 1, |inner| inner.prop_map(|test| ValueTest::Not(Box::new(test))))
}

fn named_tests() -> impl Strategy<Value = Vec<NamedTest>> {
    let test = ("[xy]", value_test()).prop_map(|(name, test)| NamedTest { name, test });
    prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(test, 1..3)]
}

fn matches() -> impl Strategy<Value = Match> {
    let methods = prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec("GET|PUT", 1..3)];
    let hosts = prop::collection::vec(host_match(), 1..3);
    let parts = (hosts, path_match(), methods, named_tests(), named_tests());
    parts.prop_map(|(hosts, path, methods, headers, query)| Match { hosts, path, methods, headers, query })
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let priority = prop_oneof![4 => Just(0), 2 => -1_i64..=1];
    let fall_through = prop::bool::weighted(0.15);
    let route = (matches(), priority, fall_through).prop_map(|(matches, priority, fall_through)| Route {
        name: String::new(),
        place: Place { file: String::new(), line: 0 },
        listeners: vec![RouteListener { listener: 0, websocket: 0, body_limit: None }],
        matches,
        priority,
        fall_through,
        action: Action::Respond(Respond::Echo),
        on_change: OnChange::Keep,
        admission: Admission::default(),
    });
    prop::collection::vec(route, 1..24)
}

fn asked() -> impl Strategy<Value = Asked> {
    let host = prop_oneof![host_name(), "[AB](\\.[AB]){0,2}\\.?(:80)?"];
    let query = prop::collection::vec("[xy](=(a|b|%61|ab))?", 0..3).prop_map(|pairs| pairs.join("&"));
    let headers = prop::collection::vec(("[xyXY]", "[ab]{0,2}"), 0..3);
    let parts = (host, path(), query, "GET|PUT|get", headers);
    parts.prop_map(|(host, path, query, method, headers)| Asked { host, path, query, method, headers })
}

fn snapshot(routes: Vec<Route>) -> Snapshot {
    let listener = Listener {
        name: String::new(),
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
        limits: ListenerLimits { connections: None, connection_rate: None, headers: 1, tls_handshakes: 1 },
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

/// The design's words, one after the other.
mod naive {
    use std::cmp::Reverse;

    use super::*;

    pub fn find(routes: &[Route], asked: &Asked) -> Option<usize> {
        let host = asked.host.to_ascii_lowercase();
        let host = host.trim_end_matches(":80").trim_end_matches('.');
        for pattern in hosts(routes, host) {
            let mut members: Vec<usize> =
                (0..routes.len()).filter(|index| routes[*index].matches.hosts.contains(&pattern)).collect();
            members.sort_by_key(|index| (key(&routes[*index]), *index));
            if let Some(found) = members.iter().find(|index| takes(&routes[**index].matches, asked)) {
                return Some(*found);
            }
            if !members.iter().any(|index| routes[*index].fall_through) {
                return None;
            }
        }
        None
    }

    fn hosts(routes: &[Route], host: &str) -> Vec<HostMatch> {
        let mut patterns: Vec<HostMatch> = routes.iter().flat_map(|route| route.matches.hosts.clone()).collect();
        patterns.retain(|pattern| match pattern {
            HostMatch::Any => true,
            HostMatch::Exact(name) => name == host,
            HostMatch::Suffix(fixed) => host.ends_with(fixed.as_str()) && host.len() > fixed.len(),
            HostMatch::Prefix(fixed) => host.starts_with(fixed.as_str()) && host.len() > fixed.len(),
        });
        patterns.sort_by_key(|pattern| match pattern {
            HostMatch::Exact(_) => (0, Reverse(0)),
            HostMatch::Suffix(fixed) => (1, Reverse(fixed.len())),
            HostMatch::Prefix(fixed) => (2, Reverse(fixed.len())),
            HostMatch::Any => (3, Reverse(0)),
        });
        patterns.dedup();
        patterns
    }

    type Key = (Reverse<i64>, u8, Reverse<usize>, bool, Reverse<usize>, Reverse<usize>);

    fn key(route: &Route) -> Key {
        let matches = &route.matches;
        let (class, length) = match &matches.path {
            PathMatch::Exact(_) => (0, 0),
            PathMatch::Prefix(text) => (1, without_slash(&normal(text)).len().max(1)),
            PathMatch::StartsWith(text) => (1, normal(text).len()),
            PathMatch::Regex(_) => (2, 0),
            PathMatch::Any => (3, 0),
        };
        let counts = (Reverse(matches.headers.len()), Reverse(matches.query.len()));
        (Reverse(route.priority), class, Reverse(length), matches.methods.is_empty(), counts.0, counts.1)
    }

    fn takes(matches: &Match, asked: &Asked) -> bool {
        let headers = |name: &str| values(asked.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)));
        let pairs: Vec<(String, String)> = asked.query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
        let query = |name: &str| values(pairs.iter().filter(|(n, _)| n == name));
        takes_path(&matches.path, &normal(&asked.path))
            && (matches.methods.is_empty() || matches.methods.contains(&asked.method))
            && matches.headers.iter().all(|test| holds(&test.test, &headers(&test.name)))
            && matches.query.iter().all(|test| holds(&test.test, &query(&test.name)))
    }

    fn values<'v>(pairs: impl Iterator<Item = &'v (String, String)>) -> Vec<String> {
        pairs.map(|(_, value)| value.clone()).collect()
    }

    fn pair(text: &str) -> (String, String) {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), value.replace("%61", "a"))
    }

    fn takes_path(path: &PathMatch, asked: &str) -> bool {
        match path {
            PathMatch::Any => true,
            PathMatch::Exact(text) => normal(text) == asked,
            PathMatch::Prefix(text) => {
                let text = normal(text);
                let segments = without_slash(&text);
                asked.strip_prefix(segments).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            PathMatch::StartsWith(text) => asked.starts_with(&normal(text)),
            PathMatch::Regex(pattern) => regex::Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(asked),
        }
    }

    fn without_slash(path: &str) -> &str {
        path.trim_end_matches('/')
    }

    fn normal(path: &str) -> String {
        path.replace("%2f", "%2F").replace("%61", "a").replace("%62", "b")
    }

    fn holds(test: &ValueTest, values: &[String]) -> bool {
        match test {
            ValueTest::Exact(text) => values.contains(text),
            ValueTest::Prefix(text) => values.iter().any(|value| value.starts_with(text)),
            ValueTest::Regex(_) => {
                values.iter().any(|value| value == "a" || (value.len() == 2 && value.starts_with('b')))
            }
            ValueTest::Present(wanted) => values.is_empty() != *wanted,
            ValueTest::Not(inner) => !holds(inner, values),
        }
    }
}

fn find(table: &RouteTable, asked: &Asked) -> Option<usize> {
    let mut fields = Fields::new();
    asked.headers.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
    let path = clean(asked.path.as_bytes()).unwrap();
    let request = Request {
        host: asked.host.as_bytes(),
        path: &path,
        query: asked.query.as_bytes(),
        method: asked.method.as_bytes(),
        fields: &fields,
    };
    table.find(0, &request).map(|found| found.route)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn finds_what_the_sorted_list_finds(routes in routes(), asked in prop::collection::vec(asked(), 1..40)) {
        let snapshot = snapshot(routes);
        let table = RouteTable::build(&snapshot).map_err(|faults| TestCaseError::fail(format!("{faults:?}")))?;
        for asked in asked {
            prop_assert_eq!(find(&table, &asked), naive::find(&snapshot.routes, &asked), "{:?}", asked);
        }
    }

    /// Whatever comes in: no panic, and what is clean has neither dot segments nor anything left to decode.
    #[test]
    fn cleans_any_bytes(path in prop::collection::vec(prop_oneof![
        Just(b'/'), Just(b'.'), Just(b'%'), Just(b'2'), Just(b'e'), Just(b'F'), Just(b';'), any::<u8>()
    ], 0..24)) {
        if let Ok(path) = clean(&path) {
            let once = path.normal().to_vec();
            let again = clean(&once).map_err(|bad| TestCaseError::fail(bad.text()))?;
            prop_assert_eq!(again.normal(), &once[..]);
            let unslashed = String::from_utf8_lossy(&once).replace("%2F", "/");
            prop_assert!(!unslashed.split('/').any(|segment| segment == "." || segment == ".."));
        }
    }
}
