//! What the door asks of the engine without a running one: read, check, explain, list.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::Fault;
use crate::http::Fields;
use crate::route::{self, RouteTable};
use crate::server::{Secrets, State};
use crate::snapshot::{Endpoint, Found, HostMatch, Snapshot};

/// Reads a snapshot.
///
/// # Errors
/// Where the text is not of the snapshot's shape.
pub fn read_snapshot(text: &str) -> Result<Snapshot, Vec<Fault>> {
    read(text).map_err(|fault| vec![fault])
}

/// Reads a list of endpoints.
///
/// # Errors
/// Where the text is not such a list.
pub fn read_endpoints(text: &str) -> Result<Vec<Endpoint>, Fault> {
    read(text)
}

/// Reads one endpoint.
///
/// # Errors
/// Where the text is none.
pub fn read_endpoint(text: &str) -> Result<Endpoint, Fault> {
    read(text)
}

/// Reads what health checks have found out.
///
/// # Errors
/// Where the text is no such list.
pub fn read_found(text: &str) -> Result<Vec<Found>, Fault> {
    read(text)
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    let mut reader = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer: String = error.path().iter().map(|segment| format!("/{segment}")).collect();
        Fault::new(pointer, error.inner().to_string())
    })
}

/// Everything that is wrong with a snapshot, short of binding its addresses.
pub fn check(snapshot: &str, secrets: &Secrets) -> Vec<Fault> {
    match read_snapshot(snapshot) {
        Ok(snapshot) => State::check(&snapshot, secrets),
        Err(faults) => faults,
    }
}

/// What is wrong with a regular expression; none for a good one.
pub fn check_regex(pattern: &str) -> Option<String> {
    route::regex_fault(pattern)
}

/// A request to explain.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Its name.
    listener: String,
    method: String,
    host: String,
    /// With the query.
    path: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
}

/// Which route takes a request, and whether a WebSocket is allowed there.
///
/// # Errors
/// Where the snapshot or the request cannot be read.
pub fn explain(snapshot: &str, request: &str) -> Result<String, Vec<Fault>> {
    let snapshot = read_snapshot(snapshot)?;
    let asked: Asked = read(request).map_err(|fault| vec![fault])?;
    let listener = snapshot.listeners.iter().position(|listener| listener.name == asked.listener);
    let listener = listener.ok_or_else(|| vec![Fault::new("", format!("no listener is called {}", asked.listener))])?;
    let table = RouteTable::build(&snapshot)?;
    let mut fields = Fields::new();
    asked.headers.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    let path = match route::clean(path.as_bytes()) {
        Ok(path) => path,
        Err(bad) => return Ok(json!({"route": null, "status": 400, "reason": bad.text()}).to_string()),
    };
    let request = route::Request {
        host: asked.host.as_bytes(),
        path: &path,
        query: query.as_bytes(),
        method: asked.method.as_bytes(),
        fields: &fields,
    };
    Ok(match table.find(listener, &request) {
        None => json!({"route": null, "status": 404, "reason": "no_route"}).to_string(),
        Some(found) => {
            let enabled = snapshot.websockets[found.websocket].enabled;
            json!({"route": found.route, "websocket": enabled}).to_string()
        }
    })
}

/// The routes in the order in which they are tried.
///
/// # Errors
/// Where the snapshot cannot be read or is faulty.
pub fn routes(snapshot: &str) -> Result<String, Vec<Fault>> {
    let table = RouteTable::build(&read_snapshot(snapshot)?)?;
    let row = |listed: &route::Listed| json!({"route": listed.route, "listener": listed.listener, "host": host(&listed.host), "ties": listed.ties});
    Ok(table.listing().iter().map(row).collect::<Value>().to_string())
}

fn host(host: &HostMatch) -> String {
    match host {
        HostMatch::Any => "*".to_owned(),
        HostMatch::Exact(name) => name.clone(),
        HostMatch::Suffix(suffix) => format!("*{suffix}"),
        HostMatch::Prefix(prefix) => format!("{prefix}*"),
    }
}
