//! An OTLP receiver, as small as it gets.
#![allow(unreachable_pub)]

use std::{collections::HashMap, net::SocketAddr};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use tokio::{net::TcpListener, sync::watch};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

/// A span and the process that it came from.
#[derive(Clone, Debug)]
pub struct Received {
    pub span: Span,
    pub instance: String,
    pub service: String,
}

impl Received {
    pub fn attributes(&self) -> HashMap<String, String> {
        texts(&self.span.attributes)
    }

    pub fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    pub fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(attributes: &[KeyValue]) -> HashMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let value = |it: &KeyValue| text(it.value.as_ref().unwrap().value.as_ref().unwrap());
    attributes
        .iter()
        .map(|it| (it.key.clone(), value(it)))
        .collect()
}

/// An OTLP receiver.
#[derive(Clone)]
pub struct Receiver {
    pub spans: watch::Sender<Vec<Received>>,
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_process in request.into_inner().resource_spans {
            let resource = texts(&of_process.resource.unwrap_or_default().attributes);
            let spans = of_process.scope_spans.into_iter().flat_map(|it| it.spans);
            let spans = spans.map(|span| Received {
                span,
                instance: resource["service.instance.id"].clone(),
                service: resource["service.name"].clone(),
            });
            self.spans.send_modify(|all| all.extend(spans));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Receiver {
    pub async fn start() -> (Self, String) {
        let (receiver, address) = Self::serving(Server::builder()).await;
        (receiver, format!("http://{address}"))
    }

    pub async fn serving(mut server: Server) -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let receiver = Self {
            spans: watch::Sender::default(),
        };
        let service = TraceServiceServer::new(receiver.clone());
        tokio::spawn(
            server
                .add_service(service)
                .serve_with_incoming(TcpIncoming::from(listener)),
        );
        (receiver, address)
    }

    pub fn of(&self, trace: &str) -> Vec<Received> {
        let all = self.spans.borrow();
        let wanted = all.iter().filter(|it| hex(&it.span.trace_id) == trace);
        wanted.cloned().collect()
    }
}
