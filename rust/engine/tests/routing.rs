//! Which route takes a request, and what it does to paths and headers: tables from the design's words.

use serde_json::{Value, json};
use tidegate_engine::http::Fields;
use tidegate_engine::route::{BadPath, HostRule, Request, RouteTable, Values, clean};
use tidegate_engine::snapshot::{FORMAT, HostMatch, Snapshot};

/// A snapshot with two listeners and these routes; each is `{"hosts", "path", ...}` of a match, with `priority`,
/// `fall_through`, `listeners` and `action` beside them.
fn snapshot(routes: &[Value]) -> Snapshot {
    let place = json!({"file": "t.yaml", "line": 1});
    let liveness = json!({"keepalive": null, "user_timeout": null});
    let listener = |name: &str| {
        json!({"name": name, "place": place, "binds": [], "tls": null, "http": ["h1"],
               "http2": {"streams": 1, "window": 1, "connection_window": 1}, "proxy_protocol": [],
               "access": {"allow": null, "deny": []}, "tcp": null, "trusted_proxies": [],
               "liveness": {"keepalive": null, "user_timeout": null},
               "limits": {"connections": null, "headers": 32768, "tls_handshakes": 1}, "head_timeout": 1, "keep_alive": 1,
               "tls_timeout": 1, "tls_queue": 1, "body_timeout": null, "liveness": liveness, "admission": admission()})
    };
    let routes: Vec<Value> = routes.iter().enumerate().map(|(index, route)| whole_route(index, route)).collect();
    let snapshot = json!({
        "format": FORMAT, "listeners": [listener("a"), listener("b")], "routes": routes, "upstreams": [],
        "websockets": [], "access_log": null, "drain": {"delay": 0, "window": 1, "timeout": 1},
    });
    serde_json::from_value(snapshot).unwrap()
}

fn whole_route(index: usize, route: &Value) -> Value {
    let or = |key: &str, default: Value| route.get(key).cloned().unwrap_or(default);
    json!({
        "name": format!("r{index}"), "place": {"file": "t.yaml", "line": 1},
        "listeners": or("listeners", json!([{"listener": 0, "websocket": index}])),
        "match": {
            "hosts": or("hosts", json!(["any"])), "path": or("path", json!("any")),
            "methods": or("methods", json!([])), "headers": tests(&route["headers"]), "query": tests(&route["query"]),
        },
        "priority": or("priority", json!(0)), "fall_through": or("fall_through", json!(false)),
        "action": or("action", json!({"respond": "echo"})), "on_change": "keep",
        "admission": admission(),
    })
}

/// No limits.
fn admission() -> Value {
    json!({"websockets": null, "connections_per_ip": null, "handshakes": null, "handshakes_per_ip": null,
           "over": "refuse", "ipv6_prefix": 64})
}

/// `[[name, test]]` as the snapshot has it.
fn tests(pairs: &Value) -> Vec<Value> {
    let pairs = pairs.as_array().cloned().unwrap_or_default();
    pairs.iter().map(|pair| json!({"name": pair[0], "test": pair[1]})).collect()
}

fn table(routes: &[Value]) -> RouteTable {
    RouteTable::build(&snapshot(routes)).unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// What is wrong with one route: pointers below `/routes/0` and messages.
fn faults(route: Value) -> Vec<(String, String)> {
    let faults = RouteTable::build(&snapshot(&[route])).err().unwrap_or_default();
    let below = |pointer: &str| pointer.strip_prefix("/routes/0").unwrap().to_owned();
    faults.into_iter().map(|fault| (below(&fault.pointer), fault.message)).collect()
}

/// A request line: `METHOD host/path?query`, then `name: value` lines.
fn find(table: &RouteTable, request: &str) -> Option<usize> {
    find_on(table, 0, request)
}

fn find_on(table: &RouteTable, listener: usize, request: &str) -> Option<usize> {
    let mut lines = request.lines();
    let (method, target) = lines.next().unwrap().split_once(' ').unwrap();
    let (target, query) = target.split_once('?').unwrap_or((target, ""));
    let (host, path) = target.split_at(target.find(['/', '*']).unwrap());
    let mut fields = Fields::new();
    for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    let path = clean(path.as_bytes()).unwrap();
    let (host, query, method) = (host.as_bytes(), query.as_bytes(), method.as_bytes());
    let found = table.find(listener, &Request { host, path: &path, query, method, fields: &fields })?;
    Some(found.route)
}

fn assert_finds(routes: &[Value], requests: &[(&str, Option<usize>)]) {
    let table = table(routes);
    for (request, expected) in requests {
        assert_eq!(find(&table, request), *expected, "{request}");
    }
}

#[test]
fn the_host_decides_first() {
    assert_finds(
        &[
            json!({}),
            json!({"hosts": [{"prefix": "www."}]}),
            json!({"hosts": [{"prefix": "www.example."}]}),
            json!({"hosts": [{"suffix": ".com"}], "priority": 9}),
            json!({"hosts": [{"suffix": ".example.com"}]}),
            json!({"hosts": [{"exact": "www.example.com"}, {"exact": "[::1]"}], "priority": -9}),
        ],
        &[
            ("GET www.example.com/", Some(5)),
            ("GET WWW.Example.Com.:8080/", Some(5)),
            ("GET [::1]:8080/", Some(5)),
            ("GET a.b.example.com/", Some(4)),
            ("GET example.com/", Some(3)),
            ("GET .example.com/", Some(3)),
            ("GET www.example.org/", Some(2)),
            ("GET www.org/", Some(1)),
            ("GET www./", Some(0)),
            ("GET com/", Some(0)),
            ("GET /", Some(0)),
            ("GET 127.0.0.1:80/", Some(0)),
        ],
    );
}

#[test]
fn wider_hosts_are_out_once_one_matched() {
    let routes = |fall_through: bool| {
        [
            json!({"path": {"prefix": "/"}}),
            json!({"hosts": [{"suffix": ".com"}], "path": {"prefix": "/x"}}),
            json!({"hosts": [{"exact": "a.com"}], "path": {"exact": "/a"}, "fall_through": fall_through}),
            json!({"hosts": [{"exact": "a.com"}], "path": {"exact": "/b"}}),
        ]
    };
    assert_finds(&routes(false), &[("GET a.com/a", Some(2)), ("GET a.com/x", None), ("GET b.com/y", None)]);
    // One route of the host says it for the host; `*.com` does not, and stops the fall.
    assert_finds(
        &routes(true),
        &[("GET a.com/b", Some(3)), ("GET a.com/x", Some(1)), ("GET a.com/y", None), ("GET c/y", Some(0))],
    );
}

#[test]
fn paths_go_from_exact_to_any() {
    assert_finds(
        &[
            json!({}),
            json!({"path": {"regex": "/ws.*"}}),
            json!({"path": {"prefix": "/"}}),
            json!({"path": {"prefix": "/ws/"}}),
            json!({"path": {"starts_with": "/wsx"}}),
            json!({"path": {"starts_with": "/ws/a"}}),
            json!({"path": {"exact": "/ws/a"}}),
            json!({"path": {"prefix": "/ws/a"}}),
        ],
        &[
            ("GET /ws", Some(3)),
            ("GET /ws/", Some(3)),
            ("GET /ws/b", Some(3)),
            ("GET /ws/a", Some(6)),
            ("GET /ws/a/b", Some(5)),
            ("GET /ws/ab", Some(5)),
            ("GET /wsx", Some(4)),
            ("GET /wsxyz/", Some(4)),
            ("GET /wsy", Some(2)),
            ("GET /", Some(2)),
            ("GET //ws", Some(2)),
            ("OPTIONS *", Some(0)),
        ],
    );
}

#[test]
fn prefixes_end_where_segments_do() {
    assert_finds(
        &[json!({"path": {"prefix": "/a//"}}), json!({"path": {"prefix": "/"}}), json!({"path": {"starts_with": "/"}})],
        &[("GET /a", Some(0)), ("GET /a//b", Some(0)), ("GET /ab", Some(1)), ("GET /", Some(1)), ("OPTIONS *", None)],
    );
}

#[test]
fn priority_goes_before_path_and_file_order_comes_last() {
    assert_finds(
        &[
            json!({"path": {"exact": "/a"}}),
            json!({"path": {"regex": "/.*"}, "priority": 1, "methods": ["PUT"]}),
            json!({"path": {"prefix": "/a"}}),
            json!({"path": {"starts_with": "/a"}}),
        ],
        &[("GET /a", Some(0)), ("PUT /a", Some(1)), ("GET /a/b", Some(2)), ("GET /ab", Some(3)), ("GET /b", None)],
    );
}

#[test]
fn then_method_headers_and_query() {
    assert_finds(
        &[
            json!({}),
            json!({"query": [["v", {"present": true}]]}),
            json!({"query": [["v", {"exact": "2"}], ["w", {"present": true}]]}),
            json!({"headers": [["X-Team", {"exact": "blue"}]]}),
            json!({"headers": [["x-team", {"exact": "blue"}], ["x-b", {"present": true}]]}),
            json!({"methods": ["POST", "PUT"]}),
        ],
        &[
            ("GET /", Some(0)),
            ("POST /\nx-team: blue\nx-b: ", Some(5)),
            ("PUT /?v", Some(5)),
            ("post /", Some(0)),
            ("GET /?v=2&w=\nX-TEAM: blue", Some(3)),
            ("GET /\nX-TEAM: blue\nX-B: ", Some(4)),
            ("GET /?v=2&w", Some(2)),
            ("GET /?v=2", Some(1)),
            ("GET /?V=2&w", Some(0)),
        ],
    );
}

#[test]
fn regexes_take_the_whole_path() {
    assert_finds(
        &[json!({"path": {"regex": "/a|/b/[0-9]+"}}), json!({"path": {"regex": "/(?x) c # to the end\n"}})],
        &[
            ("GET /a", Some(0)),
            ("GET /ab", None),
            ("GET /b/12", Some(0)),
            ("GET /b/12/", None),
            ("GET /x/b/1", None),
            ("GET /c", Some(1)),
        ],
    );
}

#[test]
fn value_tests() {
    let cases = [
        (json!({"exact": "a"}), vec!["a", "b,a"], vec!["", "b", "A", "ab"]),
        (json!({"prefix": "ab"}), vec!["ab", "abc", "x,ab"], vec!["", "a", "xab"]),
        (json!({"regex": "a+|b"}), vec!["aa", "b", "x,b"], vec!["", "ab", "xb"]),
        (json!({"present": true}), vec!["a", "a,b"], vec![""]),
        (json!({"present": false}), vec![""], vec!["a"]),
        (json!({"not": {"exact": "a"}}), vec!["", "b", "b,c"], vec!["a", "b,a"]),
        (json!({"not": {"present": false}}), vec!["a"], vec![""]),
        (json!({"not": {"not": {"exact": "a"}}}), vec!["a", "b,a"], vec!["", "b"]),
    ];
    for (test, good, bad) in cases {
        let headers = table(&[json!({"headers": [["x-n", test]]})]);
        let query = table(&[json!({"query": [["n", test]]})]);
        for (values, expected) in good.iter().map(|v| (v, Some(0))).chain(bad.iter().map(|v| (v, None))) {
            // "" is no value at all, a comma separates several.
            let values: Vec<&str> = values.split(',').filter(|value| !value.is_empty()).collect();
            let fields: String = values.iter().map(|value| format!("\nX-N: {value}")).collect();
            let pairs: Vec<String> = values.iter().map(|value| format!("n={value}")).collect();
            assert_eq!(find(&headers, &format!("GET /{fields}")), expected, "{test} {values:?}");
            assert_eq!(find(&query, &format!("GET /?o=1&{}", pairs.join("&"))), expected, "{test} {values:?}");
        }
    }
}

#[test]
fn queries_are_decoded() {
    assert_finds(
        &[json!({"query": [["a b", {"exact": "1+2"}]]}), json!({"query": [["x", {"exact": ""}]]})],
        &[("GET /?a%20b=%31+2", Some(0)), ("GET /?a+b=1%2b2", None), ("GET /?x", Some(1)), ("GET /?x=1", None)],
    );
}

#[test]
fn listeners_have_their_own_routes() {
    let both = json!([{"listener": 0, "websocket": 4}, {"listener": 1, "websocket": 5}]);
    let table = table(&[json!({"path": {"prefix": "/"}, "listeners": both}), json!({"path": {"exact": "/a"}})]);
    assert_eq!((find_on(&table, 0, "GET /a"), find_on(&table, 1, "GET /a")), (Some(1), Some(0)));
    assert_eq!(find_on(&table, 2, "GET /a"), None);
    let path = clean(b"/x").unwrap();
    let request = Request { host: b"h", path: &path, query: b"", method: b"GET", fields: &Fields::new() };
    assert_eq!(table.find(0, &request).unwrap().websocket, 4);
    assert_eq!(table.find(1, &request).unwrap().websocket, 5);
}

#[test]
fn refuses_paths_that_servers_read_differently() {
    use BadPath::{Backslash, DotSegment, Escape, Nul};
    let dots = [
        "/.",
        "/..",
        "/./a",
        "/a/../b",
        "/a/..",
        "/%2e/a",
        "/%2E%2e/a",
        "/.%2e",
        "/a%2f..%2fb",
        "/a%2F%2e%2E",
        "/..%2Fa",
        "/..;/a",
        "/..;x=1/a",
        "/.;",
        "/a/..%3bx",
        "..",
        "/a/%2e%2e%3B",
    ];
    let others = [
        ("/a%00", Nul),
        ("/a\0", Nul),
        ("/a\\b", Backslash),
        ("/a%5cb", Backslash),
        ("/a%5Cb", Backslash),
        ("/a%", Escape),
        ("/a%2", Escape),
        ("/a%2g", Escape),
        ("/%g2", Escape),
        ("/%%41", Escape),
    ];
    for (path, bad) in dots.map(|path| (path, DotSegment)).into_iter().chain(others) {
        assert_eq!(clean(path.as_bytes()).map(|_| ()), Err(bad), "{path}");
    }
    assert_eq!((DotSegment.refusal().status, DotSegment.refusal().reason), (400, "bad_path"));
    for path in ["/...", "/.a", "/..a", "/a.", "/a..", "/a../b", "/%252e%252e/", "/a%2f.b", "/a;..", "//", "/%2f"] {
        assert!(clean(path.as_bytes()).is_ok(), "{path}");
    }
}

#[test]
fn compares_the_normal_form_and_keeps_the_bytes() {
    for (raw, normal) in [
        ("/a", "/a"),
        ("/%61%7e%2D", "/a~-"),
        ("/a%2fb%c3%A9", "/a%2Fb%C3%A9"),
        ("/%2541", "/%2541"),
        ("/a%20%41", "/a%20A"),
        ("*", "*"),
    ] {
        let path = clean(raw.as_bytes()).unwrap();
        assert_eq!((path.raw(), path.normal()), (raw.as_bytes(), normal.as_bytes()));
    }
    assert_finds(
        &[
            json!({"path": {"prefix": "/caf\u{e9}/%7Eme"}}),
            json!({"path": {"exact": "/a%2fb"}}),
            json!({"path": {"prefix": "/a"}}),
        ],
        &[
            ("GET /caf%c3%a9/%7eme/x", Some(0)),
            ("GET /caf%C3%A9/~%6de", Some(0)),
            ("GET /%61%2Fb", Some(1)),
            ("GET /a/b", Some(2)),
            ("GET /a%2fc", None),
        ],
    );
}

fn forward(more: Value) -> Value {
    let mut forward = json!({"grpc_web": false,
        "to": [{"upstream": 0, "weight": 1}], "rewrite": null, "host": "preserve", "request_headers": edits(json!({})),
        "response_headers": edits(json!({})), "handshake_timeout": 1, "request_timeout": null,
        "retry": {"attempts": null, "connect": true, "statuses": []},
    });
    forward.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"forward": forward})
}

fn edits(some: Value) -> Value {
    let mut edits = json!({"set": [], "add": [], "remove": []});
    edits.as_object_mut().unwrap().extend(some.as_object().unwrap().clone());
    edits
}

#[test]
fn rewrites_paths() {
    let regex = |pattern: &str, to: &str| json!({"regex": {"pattern": pattern, "to": to}});
    let prefix = |to: &str| json!({"prefix": to});
    let cases = [
        (json!({"prefix": "/ws"}), prefix("/"), vec![("/ws", "/"), ("/ws/x", "/x"), ("/ws/", "/"), ("/ws//x", "/x")]),
        (json!({"prefix": "/ws/"}), prefix("/api"), vec![("/ws", "/api"), ("/ws/x", "/api/x"), ("/ws/", "/api/")]),
        (json!({"prefix": "/ws"}), prefix("/api/"), vec![("/ws", "/api/"), ("/ws/x", "/api/x")]),
        (json!({"prefix": "/"}), prefix("/api"), vec![("/", "/api/"), ("/x%2f", "/api/x%2f"), ("//x", "/api//x")]),
        (json!({"prefix": "/~a"}), prefix("/b"), vec![("/%7ea/%2f%41", "/b/%2f%41"), ("/%7E%61", "/b")]),
        (json!({"prefix": "/a%2Fb"}), prefix("/c"), vec![("/a%2fb/x", "/c/x")]),
        (json!({"starts_with": "/ws"}), prefix("/api"), vec![("/ws", "/api"), ("/wsx", "/apix"), ("/ws/x", "/api/x")]),
        (json!({"starts_with": "/ws/"}), prefix("/"), vec![("/ws/x", "/x"), ("/ws//x", "/x")]),
        (json!({"exact": "/a"}), prefix("/b/c"), vec![("/a", "/b/c")]),
        (json!("any"), prefix("/b"), vec![("/a", "/b/a"), ("*", "*")]),
        (
            json!({"prefix": "/v1"}),
            regex("^/v1/(.*)", "/$1"),
            vec![("/v1/x", "/x"), ("/v1/%7e", "/~"), ("/v1//x", "/x"), ("/v1", "/v1")],
        ),
        (json!({"regex": "/.*"}), regex("a(?P<n>[0-9])", "${n}$$"), vec![("/a1/a2", "/1$/2$"), ("/%7E", "/%7E")]),
        (json!({"regex": "/.*"}), regex("^/a", ""), vec![("/a", "/"), ("/abc", "/bc"), ("/a/b", "/b")]),
    ];
    for (path, rewrite, paths) in cases {
        let table = table(&[json!({"path": path, "action": forward(json!({"rewrite": rewrite}))})]);
        for (from, to) in paths {
            assert!(find(&table, &format!("GET {from}")).is_some(), "{path} takes {from}");
            let rewritten = table.compiled(0).upstream_path(&clean(from.as_bytes()).unwrap()).unwrap().into_owned();
            assert_eq!(String::from_utf8(rewritten).unwrap(), to, "{path} {rewrite} {from}");
        }
    }
}

#[test]
fn a_rewrite_makes_no_dot_segment() {
    for (path, rewrite) in [
        (json!({"starts_with": "/img"}), json!({"prefix": "/files/"})),
        (json!({"starts_with": "/img"}), json!({"regex": {"pattern": "^/img", "to": "/"}})),
    ] {
        let table = table(&[json!({"path": path, "action": forward(json!({"rewrite": rewrite}))})]);
        let rewritten = |path: &str| table.compiled(0).upstream_path(&clean(path.as_bytes()).unwrap()).map(|_| ());
        assert_eq!(rewritten("/img../secret"), Err(BadPath::DotSegment));
        assert_eq!(rewritten("/img..%2Fsecret"), Err(BadPath::DotSegment));
        assert_eq!(rewritten("/img..secret"), Ok(()));
    }
}

/// Renders with fixed values, on a route that matches `path`.
fn with_values<T>(route: Value, path: &str, use_values: impl Fn(&Values<'_>) -> T) -> T {
    let table = table(&[route]);
    let mut fields = Fields::new();
    for (name, value) in [("X-Name", "one"), ("x-name", "t\rw\no\0"), ("Cookie", "c")] {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    let path = clean(path.as_bytes()).unwrap();
    use_values(&Values {
        client_ip: Some("2001:db8::1".parse().unwrap()),
        server_name: Some("sni.example"),
        route: "chat",
        request_id: "id-7",
        host: b"h.example:8080",
        method: b"GET",
        path: &path,
        query: b"a=b",
        fields: &fields,
        compiled: table.compiled(0),
    })
}

fn rendered(template: &str, matching: Value, path: &str) -> String {
    let route = json!({"path": matching, "action": forward(json!({"host": {"set": template}}))});
    with_values(route, path, |values| {
        let HostRule::Set(template) = &values.compiled.host else { panic!("no template") };
        let mut out = Vec::new();
        template.render(&mut out, values);
        String::from_utf8(out).unwrap()
    })
}

#[test]
fn templates() {
    for (template, expected) in [
        ("", ""),
        ("plain", "plain"),
        ("{client.ip}", "2001:db8::1"),
        ("{tls.server_name}/{route}/{request.id}", "sni.example/chat/id-7"),
        ("{method} {host}{path}?{query}", "GET h.example/a%2f/b?a=b"),
        ("{header.X-NAME}|{header.cookie}|{header.none}", "one, two|c|"),
        ("{path.1}|{path.2}|{path.3}", "a%2F|b|"),
        ("{{{route}}}", "{chat}"),
    ] {
        assert_eq!(rendered(template, json!("any"), "/a%2f/b"), expected, "{template}");
    }
    let regex = json!({"regex": "/(v[0-9])(?:/(x))?/(.*)"});
    assert_eq!(rendered("{path.1}|{path.2}|{path.3}", regex, "/v1/a/b"), "v1||a/b");
}

#[test]
fn edits_remove_set_and_add() {
    let changes = edits(json!({
        "remove": ["cookie", "X-GONE"],
        "set": [["X-Name", "{header.x-name}!"], ["X-New", "{client.ip}"]],
        "add": [["X-New", "{header.cookie}"]],
    }));
    let on_request = json!({"action": forward(json!({"request_headers": changes}))});
    let fields = with_values(on_request, "/", |values| {
        let edits = &values.compiled.request_edits;
        assert!(!edits.is_empty() && values.compiled.response_edits.is_empty());
        let mut fields = values.fields.clone();
        edits.apply(&mut fields, values);
        fields
    });
    let found: Vec<_> = fields.iter().map(|(name, value)| (text(name), text(value))).collect();
    let expected = [("X-Name", "one, two!"), ("X-New", "2001:db8::1"), ("X-New", "c")];
    assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn redirects_and_answers_have_headers_too() {
    let headers = edits(json!({"set": [["X-A", "{route}"]]}));
    let answers = [
        json!({"redirect": {"to": "/", "status": 308, "headers": headers}}),
        json!({"respond": {"fixed": {"status": 200, "body": "", "content_type": "text/plain", "headers": headers}}}),
    ];
    for action in answers {
        let fields = with_values(json!({"action": action}), "/", |values| {
            let mut fields = Fields::new();
            values.compiled.response_edits.apply(&mut fields, values);
            fields
        });
        assert_eq!(fields.first("x-a"), Some(&b"chat"[..]));
    }
}

#[test]
fn a_path_leads_no_redirect_to_another_host() {
    for (to, path, expected) in [
        ("https://{host}{path}", "//evil/x", "https://h.example//evil/x"),
        ("{path}", "//evil/x", "/evil/x"),
        ("/{path.2}/x", "//evil", "/evil/x"),
        ("//cdn.example{path}", "/x", "//cdn.example/x"),
    ] {
        let action = json!({"redirect": {"to": to, "status": 302, "headers": edits(json!({}))}});
        let location = with_values(json!({"action": action}), path, |values| {
            values.compiled.redirect_to.as_ref().unwrap().render(values)
        });
        assert_eq!(text(&location), expected, "{to}");
    }
}

#[test]
fn says_all_faults_at_once_and_where() {
    let changes = edits(json!({
        "set": [["Connection", "x"], ["Host", "x"], ["a b", "{hots}"]],
        "add": [["sec-websocket-key", "x"]],
        "remove": ["Transfer-Encoding"],
    }));
    let route = json!({
        "hosts": ["any", {"suffix": "example.com"}, {"exact": ""}],
        "path": {"regex": "/(a"}, "methods": ["GE T"],
        "headers": [["x y", {"not": {"regex": "["}}]], "query": [["ok", {"regex": "a{1000}{1000}"}]],
        "action": forward(json!({"host": {"set": "{"}, "request_headers": changes})),
    });
    let found = faults(route);
    let expected = [
        ("/match/hosts/1", "no host name"),
        ("/match/hosts/2", "no host name"),
        ("/match/methods/0", "no method"),
        ("/match/headers/0/name", "no header's name"),
        ("/match/path", "unclosed group"),
        ("/match/headers/0/test/not/regex", "unclosed character class"),
        ("/match/query/0/test/regex", "takes more than 1048576 bytes"),
        ("/action/forward/request_headers/remove/0", "cannot be edited"),
        ("/action/forward/request_headers/set/0/0", "cannot be edited"),
        ("/action/forward/request_headers/set/1/0", "by the route's `host`"),
        ("/action/forward/request_headers/set/2/0", "no header's name"),
        ("/action/forward/request_headers/set/2/1", "did you mean `{host}`?"),
        ("/action/forward/request_headers/add/0/0", "cannot be edited"),
        ("/action/forward/host/set", "not closed"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((pointer, message), (at, part)) in found.iter().zip(expected) {
        assert_eq!(pointer, at, "{message}");
        assert!(message.contains(part) && !message.contains('\n'), "{message}");
    }
}

#[test]
fn refuses_patterns_that_no_request_can_match() {
    for (path, part) in [
        (json!({"exact": "a"}), "does not begin with `/`"),
        (json!({"prefix": ""}), "does not begin with `/`"),
        (json!({"prefix": "/a?b"}), "has a `?` or `#`"),
        (json!({"exact": "/a/.."}), "segment"),
        (json!({"prefix": "/%2e/a"}), "segment"),
        (json!({"starts_with": "/../a"}), "segment"),
        (json!({"starts_with": "/a%2"}), "two hexadecimal digits"),
        (json!({"exact": "/a\\b"}), "backslash"),
        (json!({"regex": "a)|(b"}), "unopened group"),
    ] {
        let found = faults(json!({"path": path}));
        assert!(matches!(&found[..], [(at, message)] if at == "/match/path" && message.contains(part)), "{found:?}");
    }
    assert_finds(&[json!({"path": {"starts_with": "/."}})], &[("GET /.well-known", Some(0)), ("GET /a", None)]);
}

#[test]
fn refuses_rewrites_that_cannot_work() {
    let regex = |pattern: &str, to: &str| json!({"regex": {"pattern": pattern, "to": to}});
    for (path, rewrite, at, part) in [
        (json!({"regex": "/a"}), json!({"prefix": "/b"}), "prefix", "rewrite by regex"),
        (json!("any"), json!({"prefix": "b"}), "prefix", "does not begin"),
        (json!("any"), json!({"prefix": "/a/../b"}), "prefix", "segment"),
        (json!("any"), json!({"prefix": "/a?x"}), "prefix", "a rewrite changes the path alone"),
        (json!("any"), json!({"prefix": "/a b"}), "prefix", "percent-encoded"),
        (json!("any"), regex("(", "/"), "regex/pattern", "unclosed group"),
        (json!("any"), regex("(a)", "/$2"), "regex/to", "no such group"),
        (json!("any"), regex("(a)", "/${n}"), "regex/to", "no such group"),
        (json!("any"), regex("(a)", "/$1a/b"), "regex/to", "write `${1}a`"),
        (json!("any"), regex("(a)", "/$1?x"), "regex/to", "a rewrite changes the path alone"),
    ] {
        let found = faults(json!({"path": path, "action": forward(json!({"rewrite": rewrite}))}));
        let pointer = format!("/action/forward/rewrite/{at}");
        let is_expected = matches!(&found[..], [(at, message)] if *at == pointer && message.contains(part));
        assert!(is_expected, "{path} {rewrite}: {found:?}");
    }
}

#[test]
fn lists_routes_in_the_order_they_are_tried() {
    let table = table(&[
        json!({}),
        json!({"hosts": ["any", {"suffix": ".c"}, {"exact": "z"}], "path": {"prefix": "/x"}}),
        json!({"hosts": [{"suffix": ".b.c"}]}),
        json!({"hosts": [{"exact": "a"}, {"exact": "z"}], "path": {"exact": "/x"}}),
        json!({"hosts": [{"prefix": "w."}], "listeners": [{"listener": 1, "websocket": 0}]}),
        json!({"hosts": [{"suffix": ".c"}]}),
    ]);
    let listed: Vec<_> = table.listing().into_iter().map(|row| (row.listener, show(&row.host), row.route)).collect();
    let expected = [
        (0, "z", 3),
        (0, "z", 1),
        (0, "a", 3),
        (0, "*.b.c", 2),
        (0, "*.c", 1),
        (0, "*.c", 5),
        (0, "*", 1),
        (0, "*", 0),
        (1, "w.*", 4),
    ];
    assert_eq!(listed, expected.map(|(listener, host, route)| (listener, host.to_owned(), route)));
}

fn show(host: &HostMatch) -> String {
    match host {
        HostMatch::Any => "*".to_owned(),
        HostMatch::Exact(name) => name.clone(),
        HostMatch::Suffix(fixed) => format!("*{fixed}"),
        HostMatch::Prefix(fixed) => format!("{fixed}*"),
    }
}

#[test]
fn ties_are_routes_that_only_the_file_tells_apart() {
    let header = |test: Value| json!({"headers": [["x-a", test]]});
    for (one, two, ties) in [
        (json!({}), json!({}), true),
        (json!({"path": {"prefix": "/a"}}), json!({"path": {"prefix": "/a/"}}), true),
        (json!({"path": {"prefix": "/a"}}), json!({"path": {"starts_with": "/a"}}), true),
        (json!({"path": {"prefix": "/"}}), json!({"path": {"starts_with": "/"}}), true),
        (json!({"path": {"prefix": "/a"}}), json!({"path": {"prefix": "/b"}}), false),
        (json!({"path": {"exact": "/a"}}), json!({"path": {"exact": "/%61"}}), true),
        (json!({"path": {"exact": "/a"}}), json!({"path": {"prefix": "/a"}}), false),
        (json!({"path": {"regex": "/a+"}}), json!({"path": {"regex": "/a+"}}), true),
        (json!({"priority": 1}), json!({}), false),
        (json!({"methods": ["GET"]}), json!({"methods": ["PUT"]}), false),
        (json!({"methods": ["GET", "PUT"]}), json!({"methods": ["PUT"]}), true),
        (header(json!({"exact": "1"})), header(json!({"exact": "2"})), false),
        (header(json!({"exact": "1"})), header(json!({"not": {"exact": "1"}})), false),
        (header(json!({"exact": "1"})), header(json!({"present": false})), false),
        (header(json!({"exact": "1"})), header(json!({"prefix": "1"})), true),
        (header(json!({"not": {"exact": "1"}})), header(json!({"present": false})), true),
        (header(json!({"exact": "1"})), json!({"headers": [["x-b", {"exact": "2"}]]}), true),
        (json!({"query": [["a", {"exact": "1"}]]}), json!({"query": [["a", {"exact": "2"}]]}), false),
        (json!({"hosts": [{"exact": "a"}]}), json!({"hosts": [{"exact": "b"}]}), false),
    ] {
        let listed = table(&[one.clone(), two.clone()]).listing();
        let found: Vec<_> = listed.iter().map(|row| (row.route, row.ties.clone())).collect();
        for (route, other) in [(0, 1), (1, 0)] {
            let expected = if ties { vec![other] } else { vec![] };
            assert!(found.contains(&(route, expected)), "{one} {two}: {found:?}");
        }
    }
}
