//! Sends spans to an OTLP receiver over gRPC.
//!
//! The SDK builds batches on a thread of its own. The connection runs on a separate runtime with
//! one more thread, because the SDK's thread blocks on it, which could deadlock a shared runtime
//! (open-telemetry/opentelemetry-rust#2583).
//!
//! The exporter must never make a request wait: beyond `trace.max_queue`, spans are dropped and
//! counted.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::{Context, KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span,
        SpanData, SpanExporter, SpanProcessor,
    },
};
use tokio::runtime::{Builder, Handle, Runtime};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::{spans::SPANS, throttle::Throttle};
use gaocache_core::error::{BoxError, Error, ErrorKind, Result};

/// Time limit for sending the remaining spans when the process ends; the chart's
/// `terminationGracePeriodSeconds` includes it.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Where spans are sent, and how.
#[derive(Clone, Debug)]
pub struct ExporterRules {
    /// The OTLP receiver's URL.
    pub endpoint: String,
    /// File with the authorities that sign its certificate; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The service name in traces.
    pub service_name: String,
    /// Tells this process from others.
    pub instance: String,
    /// Maximum number of spans that wait to be sent.
    pub max_queue: usize,
    /// Bound on sending a batch.
    pub timeout: Duration,
}

/// A running exporter.
pub struct Exporter {
    provider: SdkTracerProvider,
    runtime: Option<Runtime>,
}

impl Exporter {
    /// Starts its threads. Nothing is connected before there is something to send.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for rules or `OTEL_` variables that can't work.
    pub fn start(rules: &ExporterRules) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("gaocache-traces")
            .enable_all()
            .build()
            .map_err(|error| {
                let what = format!("could not start the trace exporter: {error}");
                Error::new(ErrorKind::Internal, what).with_source(error)
            })?;
        let entered = runtime.enter();
        let sender = Sender {
            inner: Arc::new(connection(rules)?),
            runtime: runtime.handle().clone(),
            timeout: rules.timeout,
            queued: Arc::default(),
            throttle: Throttle::default(),
        };
        drop(entered);
        let bounded = Bounded {
            queued: sender.queued.clone(),
            most: rules.max_queue,
            batches: BatchSpanProcessor::builder(sender)
                .with_batch_config(
                    BatchConfigBuilder::default()
                        .with_max_queue_size(rules.max_queue)
                        .build(),
                )
                .build(),
        };
        let provider = SdkTracerProvider::builder()
            .with_span_processor(bounded)
            // Every request that has a span is sampled: `trace::Sampling` has already decided.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource(rules))
            .build();
        Ok(Self {
            provider,
            runtime: Some(runtime),
        })
    }

    /// The tracer that creates spans.
    pub fn tracer(&self) -> SdkTracer {
        self.provider.tracer("gaocache")
    }

    /// Sends the remaining spans, for at most [`FLUSH_TIMEOUT`]. Blocks.
    pub fn flush(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "not all spans could be sent before the process ended");
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn resource(rules: &ExporterRules) -> Resource {
    // The builder adds the attributes from OTEL_RESOURCE_ATTRIBUTES.
    Resource::builder()
        .with_service_name(rules.service_name.clone())
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", rules.instance.clone()),
        ])
        .build()
}

fn wrong(setting: &str, error: impl Into<BoxError>) -> Error {
    let error = error.into();
    Error::new(ErrorKind::Configuration, format!("{setting}: {error}")).with_source(error)
}

/// The OTLP client. It reads `OTEL_EXPORTER_OTLP_HEADERS` and `_COMPRESSION` itself.
fn connection(rules: &ExporterRules) -> Result<OtlpExporter> {
    let mut endpoint = Endpoint::from_shared(rules.endpoint.clone())
        .map_err(|error| wrong("trace.endpoint", error))?
        // Without this limit, an address that drops packets would hold a batch for minutes.
        .connect_timeout(rules.timeout)
        .timeout(rules.timeout);
    if rules.endpoint.starts_with("https://") {
        endpoint = endpoint
            .tls_config(tls(rules)?)
            .map_err(|error| wrong("trace.endpoint", error))?;
    }
    OtlpExporter::builder()
        .with_tonic()
        .with_channel(endpoint.connect_lazy())
        .with_timeout(rules.timeout)
        .build()
        .map_err(|error| wrong("trace.endpoint", error))
}

fn tls(rules: &ExporterRules) -> Result<ClientTlsConfig> {
    let Some(ca) = &rules.ca else {
        return Ok(ClientTlsConfig::new().with_enabled_roots());
    };
    let pem =
        std::fs::read(ca).map_err(|error| wrong(&format!("trace.ca: {}", ca.display()), error))?;
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
}

/// Accepts spans up to a limit and counts the rest. The SDK's own queue drops spans without
/// counting them.
#[derive(Debug)]
struct Bounded {
    /// Spans that were accepted and are neither sent nor given up yet.
    queued: Arc<AtomicUsize>,
    most: usize,
    batches: BatchSpanProcessor,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.queued.fetch_add(1, Ordering::AcqRel) < self.most {
            self.batches.on_end(span);
        } else {
            self.queued.fetch_sub(1, Ordering::AcqRel);
            SPANS.dropped(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// Sends batches on the runtime, each within the timeout, and counts the outcomes.
struct Sender {
    inner: Arc<OtlpExporter>,
    runtime: Handle,
    timeout: Duration,
    queued: Arc<AtomicUsize>,
    throttle: Throttle,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl SpanExporter for Sender {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let (inner, timeout) = (self.inner.clone(), self.timeout);
        let sending = async move { tokio::time::timeout(timeout, inner.export(batch)).await };
        let result = match self.runtime.spawn(sending).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(OTelSdkError::Timeout(timeout)),
            Err(died) => Err(OTelSdkError::InternalFailure(died.to_string())),
        };
        self.queued.fetch_sub(spans, Ordering::AcqRel);
        match &result {
            Ok(()) => SPANS.exported(spans),
            Err(error) => {
                SPANS.failed(spans);
                if let Some(suppressed) = self.throttle.due("export") {
                    tracing::warn!(%error, spans, suppressed, "could not send spans");
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Called before the first batch, while there is no other reference.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.set_resource(resource);
        }
    }
}
