//! What a collector reads of OTLP's messages: `opentelemetry/proto/collector/{trace,logs}/v1`, fields by their numbers.

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TraceRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(super) name: String,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "7")]
    pub(super) start: u64,
    #[prost(fixed64, tag = "8")]
    pub(super) end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LogsRequest {
    #[prost(message, repeated, tag = "1")]
    resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_logs: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeLogs {
    #[prost(message, repeated, tag = "2")]
    records: Vec<Record>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(message, optional, tag = "5")]
    body: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Value>,
}

/// One that is no text is read as the empty one.
#[derive(Clone, PartialEq, prost::Message)]
struct Value {
    #[prost(string, tag = "1")]
    text: String,
}

impl Span {
    /// An attribute of it.
    pub(super) fn says(&self, key: &str) -> Option<String> {
        said(&self.attributes, key)
    }
}

impl TraceRequest {
    pub(super) fn spans(self) -> impl Iterator<Item = (String, Span)> {
        self.resource_spans.into_iter().flat_map(|of| {
            let service = service(of.resource.as_ref());
            let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.map(move |span| (service.clone(), span))
        })
    }
}

impl LogsRequest {
    pub(super) fn lines(self) -> impl Iterator<Item = (String, String)> {
        self.resource_logs.into_iter().flat_map(|of| {
            let service = service(of.resource.as_ref());
            let records = of.scope_logs.into_iter().flat_map(|scope| scope.records);
            records.map(move |record| (service.clone(), record.body.unwrap_or_default().text))
        })
    }
}

fn service(resource: Option<&Resource>) -> String {
    resource.and_then(|resource| said(&resource.attributes, "service.name")).unwrap_or_default()
}

fn said(attributes: &[KeyValue], key: &str) -> Option<String> {
    let of = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(of.value.clone()?.text)
}
