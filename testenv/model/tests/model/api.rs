//! Client of the API without any generated type: requests and answers are JSON, by the descriptors alone.

use bytes::{Buf as _, BufMut as _};
use fiberlb_proto::FILE_DESCRIPTOR_SET;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions};
use serde_json::Value;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

/// Client of one plugin.
#[derive(Clone)]
pub(crate) struct Api {
    channel: Channel,
    pool: DescriptorPool,
}

impl Api {
    pub(crate) fn new(channel: Channel) -> Self {
        Self { channel, pool: DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap() }
    }

    /// Calls a method that answers once. Fields of the answer have their names in the `.proto` files, and all of them
    /// stand there, but for messages and optional ones that are not set.
    pub(crate) async fn call(&self, service: &str, method: &str, request: &Value) -> Result<Value, Status> {
        let method = self.method(service, method);
        let mut client = self.ready().await?;
        let answer = client.unary(encoded(&method, request), path(&method), Raw).await?;
        Ok(decoded(method.output(), &answer.into_inner()))
    }

    /// Events of all resources in view, as JSON; ends when the stream breaks.
    pub(crate) async fn watch(&self) -> Result<BoxStream<'static, Value>, Status> {
        let method = self.method("WatchService", "Watch");
        let mut client = self.ready().await?;
        let request = encoded(&method, &serde_json::json!({}));
        let events = client.server_streaming(request, path(&method), Raw).await?.into_inner();
        let events = events.take_while(|event| std::future::ready(event.is_ok()));
        Ok(events.map(move |event| decoded(method.output(), &event.unwrap())).boxed())
    }

    fn method(&self, service: &str, method: &str) -> MethodDescriptor {
        let service = self.pool.get_service_by_name(&format!("fiberlb.v1.{service}")).expect(service);
        let mut methods = service.methods();
        methods.find(|it| it.name() == method).expect(method)
    }

    async fn ready(&self) -> Result<tonic::client::Grpc<Channel>, Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(client)
    }
}

/// Paths of the fields that a refusal names.
pub(crate) fn violated(refused: &Status) -> Vec<String> {
    let details = refused.get_error_details();
    let fields = details.bad_request().into_iter().flat_map(|it| &it.field_violations);
    let unmet = details.precondition_failure().into_iter().flat_map(|it| &it.violations);
    let unmet = unmet.filter(|violation| violation.r#type == "UNMET_FIELDS");
    fields.map(|it| it.field.clone()).chain(unmet.map(|it| it.subject.clone())).collect()
}

fn path(method: &MethodDescriptor) -> PathAndQuery {
    format!("/{}/{}", method.parent_service().full_name(), method.name()).parse().unwrap()
}

fn encoded(method: &MethodDescriptor, request: &Value) -> Request<Vec<u8>> {
    let message = DynamicMessage::deserialize(method.input(), request);
    Request::new(message.unwrap_or_else(|error| panic!("{request}: {error}")).encode_to_vec())
}

fn decoded(descriptor: MessageDescriptor, bytes: &[u8]) -> Value {
    let message = DynamicMessage::decode(descriptor, bytes).unwrap();
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);
    message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}

/// Messages as they are on the wire.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}
