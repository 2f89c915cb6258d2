//! Traces and logs by OTLP, the protocol of OpenTelemetry, over HTTP: what the feature `otlp` is.
//!
//! ```text
//! spans, events --> layers --> batches, a thread each --POST /v1/traces, /v1/logs--> collector
//! ```
//!
//! `OTEL_EXPORTER_OTLP_ENDPOINT` turns it on and says where the collector is; without it nothing of this is there. What is
//! traced is rare: edges' attachments, sessions that open, plans and the epochs that they make, links that are down.
//! Nothing is traced for each frame. The logs are those that are written to standard error, by the same filter.
//!
//! What the collector does not take in time is dropped: 2,048 spans and as many lines wait at most, and no task of the
//! process ever waits for it. That it takes none is told when it begins and when it ends, for spans and lines apart, since some
//! collectors take only one of them. At the end of the process what waits is sent, for [`FLUSH_TIME_MAX`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{LogExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use overway_telemetry::SPANS;
use tracing::{info, warn};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, reload};

use super::failure::Failure;

/// The variable that turns it on, as OpenTelemetry's specification names it.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Time for one batch.
const EXPORT_TIME_MAX: Duration = Duration::from_secs(5);
/// Time for all that is left when the process ends: a restart is not held up by a collector that is away.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(2);
/// Bytes of a collector's answer that are read; it says how many it refused.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// What has to be sent before the process ends.
static RUNNING: Mutex<Option<(SdkTracerProvider, SdkLoggerProvider)>> = Mutex::new(None);

/// Sends requests of one exporter, from its thread. What it logs there is written and not exported.
#[derive(Debug)]
struct Client {
    agent: ureq::Agent,
    /// What it sends.
    signal: &'static str,
    is_refused: AtomicBool,
}

type Sent<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Client {
    fn send_bytes<'life, 'sent>(&'life self, request: Request<Bytes>) -> Sent<'sent>
    where
        'life: 'sent,
        Self: 'sent,
    {
        Box::pin(std::future::ready(self.send(request)))
    }
}

impl Client {
    fn new(signal: &'static str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // The collector is on this machine, where a proxy of the environment's does not lead.
            .proxy(None)
            .timeout_global(Some(EXPORT_TIME_MAX));
        Self { agent: config.build().into(), signal, is_refused: AtomicBool::new(false) }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.ask(request);
        match &answer {
            Ok(answer) if answer.status().is_success() => self.tell(None),
            Ok(answer) => self.tell(Some(&answer.status())),
            Err(error) => self.tell(Some(error)),
        }
        Ok(answer?)
    }

    fn ask(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (head, body) = request.into_parts();
        let answer = self.agent.run(Request::from_parts(head, body.to_vec()))?;
        let (head, mut body) = answer.into_parts();
        let body = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        Ok(Response::from_parts(head, body.into()))
    }

    /// Tells people when sending begins to fail, and when it does so no longer.
    fn tell(&self, failure: Option<&dyn fmt::Display>) {
        let signal = self.signal;
        match (failure, self.is_refused.swap(failure.is_some(), Ordering::Relaxed)) {
            (Some(failure), false) => {
                warn!(%failure, "the collector takes no {signal}: they are lost; see {ENDPOINT}");
            }
            (None, true) => info!("the collector takes {signal} again"),
            (Some(_), true) | (None, false) => {}
        }
    }
}

/// What exports.
pub(crate) struct Exporter<S> {
    pub(crate) layer: Box<dyn Layer<S> + Send + Sync>,
    /// Changes the filter of its logs.
    pub(crate) logs: reload::Handle<EnvFilter, S>,
}

/// Exports from now on, of the logs what passes the filter; `None` if nobody says where to.
pub(crate) fn exporter<S>(logs: EnvFilter) -> Result<Option<Exporter<S>>, Failure>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let Some(endpoint) = endpoint()? else { return Ok(None) };
    let failed = |error: &dyn fmt::Display| Failure::Failed(format!("OTLP: {error}"));
    let spans = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new("spans"))
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(EXPORT_TIME_MAX)
        .with_endpoint(format!("{endpoint}/v1/traces"))
        .build()
        .map_err(|error| failed(&error))?;
    let lines = LogExporter::builder()
        .with_http()
        .with_http_client(Client::new("logs"))
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(EXPORT_TIME_MAX)
        .with_endpoint(format!("{endpoint}/v1/logs"))
        .build()
        .map_err(|error| failed(&error))?;
    // OTEL_RESOURCE_ATTRIBUTES says more.
    let name = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "overway".to_owned());
    let resource = Resource::builder().with_service_name(name).build();
    let tracing =
        SdkTracerProvider::builder().with_batch_exporter(spans).with_resource(resource.clone());
    let logging = SdkLoggerProvider::builder().with_batch_exporter(lines).with_resource(resource);
    let (tracing, logging) = (tracing.build(), logging.build());
    let spans = tracing_opentelemetry::layer()
        .with_tracer(tracing.tracer("overway"))
        .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == SPANS));
    let (filter, handle) = reload::Layer::new(logs);
    let lines = OpenTelemetryTracingBridge::new(&logging).with_filter(filter);
    *RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some((tracing, logging));
    Ok(Some(Exporter { layer: spans.and_then(lines).boxed(), logs: handle }))
}

/// Where the collector is.
fn endpoint() -> Result<Option<String>, Failure> {
    let Ok(said) = std::env::var(ENDPOINT) else { return Ok(None) };
    let endpoint = said.trim_end_matches('/');
    match endpoint.strip_prefix("http://") {
        _ if endpoint.is_empty() => Ok(None),
        Some(rest) if !rest.is_empty() => Ok(Some(endpoint.to_owned())),
        Some(_) | None => Err(Failure::Configuration(format!(
            "{ENDPOINT}: {said:?} is no http:// URL; expected that of a collector on this machine, such as \
             http://127.0.0.1:4318"
        ))),
    }
}

/// Sends what is waiting, at the process's end.
pub(crate) fn finish() {
    let running = RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if let Some((tracing, logging)) = running {
        // A collector that is away gets nothing; the process ends all the same.
        let began = Instant::now();
        let _ = tracing.shutdown_with_timeout(FLUSH_TIME_MAX);
        let _ = logging.shutdown_with_timeout(FLUSH_TIME_MAX.saturating_sub(began.elapsed()));
    }
}
