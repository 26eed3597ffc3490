//! The one door between the languages: `tidegate._engine`. Plain values and bytes; nothing here decides anything.
//!
//! Every call that may take time releases the GIL. No worker thread ever takes it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use tidegate_engine::door;
use tidegate_engine::error::Fault;
use tidegate_engine::server;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

create_exception!(tidegate._engine, EngineError, PyException);

fn engine_error(faults: &[Fault]) -> PyErr {
    let message = faults.iter().map(|fault| fault.message.as_str()).collect::<Vec<_>>().join("; ");
    let pointer = faults.first().map_or_else(String::new, |fault| fault.pointer.clone());
    EngineError::new_err((message, pointer))
}

/// A configuration that is built and bound, but not serving yet.
#[pyclass(module = "tidegate._engine", frozen)]
struct Prepared(Mutex<Option<server::Prepared>>);

/// The data plane.
#[pyclass(module = "tidegate._engine", frozen)]
struct Engine(Arc<server::Engine>);

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (workers=None))]
    fn new(workers: Option<usize>) -> PyResult<Self> {
        let started = server::Engine::start(workers);
        let engine = started.map_err(|error| engine_error(&[Fault::new("", error.to_string())]))?;
        Ok(Self(Arc::new(engine)))
    }

    fn prepare(&self, py: Python<'_>, snapshot: &str, secrets: HashMap<String, Vec<u8>>) -> PyResult<Prepared> {
        let prepared = py.detach(|| self.0.prepare(door::read_snapshot(snapshot)?, &secrets));
        let prepared = prepared.map_err(|faults| engine_error(&faults))?;
        Ok(Prepared(Mutex::new(Some(prepared))))
    }

    fn commit(&self, py: Python<'_>, prepared: &Prepared) -> PyResult<u64> {
        let prepared = prepared.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let prepared = prepared.ok_or_else(|| engine_error(&[Fault::new("", "it was committed before")]))?;
        Ok(py.detach(|| self.0.commit(prepared)))
    }

    fn set_endpoints(&self, py: Python<'_>, upstream: &str, endpoints: &str) -> PyResult<()> {
        let set = || self.0.set_endpoints(upstream, &door::read_endpoints(endpoints)?);
        py.detach(set).map_err(|fault| engine_error(&[fault]))
    }

    fn set_health(&self, py: Python<'_>, upstream: &str, found: &str) -> PyResult<()> {
        let set = || self.0.set_health(upstream, &door::read_found(found)?);
        py.detach(set).map_err(|fault| engine_error(&[fault]))
    }

    fn probe(&self, py: Python<'_>, number: u64, upstream: &str, endpoint: &str) -> PyResult<()> {
        let probe = || self.0.probe(number, upstream, door::read_endpoint(endpoint)?);
        py.detach(probe).map_err(|fault| engine_error(&[fault]))
    }

    fn verdicts(&self, py: Python<'_>, timeout: f64) -> Vec<(u64, Option<String>)> {
        py.detach(|| self.0.verdicts(seconds(timeout)))
    }

    fn listeners(&self, py: Python<'_>) -> String {
        py.detach(|| self.0.listeners().to_string())
    }

    fn metrics(&self, py: Python<'_>) -> String {
        py.detach(|| self.0.metrics().to_string())
    }

    fn connections(&self, py: Python<'_>) -> String {
        py.detach(|| self.0.connections().to_string())
    }

    fn close(&self, py: Python<'_>, connection: &str, code: u16, reason: &str) -> bool {
        py.detach(|| self.0.close(connection, code, reason))
    }

    fn events(&self, py: Python<'_>, timeout: f64) -> Vec<String> {
        py.detach(|| self.0.events(seconds(timeout)))
    }

    fn drain(&self, py: Python<'_>) {
        py.detach(|| self.0.drain());
    }

    fn draining(&self) -> bool {
        self.0.is_draining()
    }

    fn wait_drained(&self, py: Python<'_>, timeout: f64) -> bool {
        py.detach(|| self.0.wait_drained(seconds(timeout)))
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }
}

/// A number of seconds from Python; nothing negative or endless.
fn seconds(timeout: f64) -> Duration {
    Duration::try_from_secs_f64(timeout.clamp(0.0, 86_400.0)).unwrap_or_default()
}

#[pyfunction]
fn check(py: Python<'_>, snapshot: &str, secrets: HashMap<String, Vec<u8>>) -> Vec<(String, String)> {
    let faults = py.detach(|| door::check(snapshot, &secrets));
    faults.into_iter().map(|fault| (fault.pointer, fault.message)).collect()
}

#[pyfunction]
fn check_regex(pattern: &str) -> Option<String> {
    door::check_regex(pattern)
}

#[pyfunction]
fn explain(py: Python<'_>, snapshot: &str, request: &str) -> PyResult<String> {
    py.detach(|| door::explain(snapshot, request)).map_err(|faults| engine_error(&faults))
}

#[pyfunction]
fn routes(py: Python<'_>, snapshot: &str) -> PyResult<String> {
    py.detach(|| door::routes(snapshot)).map_err(|faults| engine_error(&faults))
}

#[pyfunction]
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

#[pymodule]
fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("EngineError", module.py().get_type::<EngineError>())?;
    module.add_class::<Engine>()?;
    module.add_class::<Prepared>()?;
    module.add_function(wrap_pyfunction!(check, module)?)?;
    module.add_function(wrap_pyfunction!(check_regex, module)?)?;
    module.add_function(wrap_pyfunction!(explain, module)?)?;
    module.add_function(wrap_pyfunction!(routes, module)?)?;
    module.add_function(wrap_pyfunction!(version, module)?)
}
