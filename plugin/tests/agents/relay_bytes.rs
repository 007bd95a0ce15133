//! A relayed stream is forwarded byte for byte, whatever is in its messages. The leader echoes them.

use std::convert::Infallible;
use std::path::Path;

use fiberlb_plugin::agents::Desk;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Bytes, Context, Poll, Service, http};
use tonic::server::{NamedService, StreamingService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::world::World;

const METHOD: &str = "/fiberlb.agent.v1.AgentService/Session";

/// Messages of any bytes.
#[derive(Clone, Copy)]
struct Any;

impl Codec for Any {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Any {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put(into, message);
        Ok(())
    }
}

impl Decoder for Any {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = bytes::Buf::remaining(from);
        Ok(Some(bytes::Buf::copy_to_bytes(from, length)))
    }
}

/// Echoes its messages.
#[derive(Clone)]
struct Echo;

impl StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Streaming<Bytes>;
    type Future = BoxFuture<Response<Streaming<Bytes>>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner())) })
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "fiberlb.agent.v1.AgentService";
}

impl Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let most = 16 << 20;
        Box::pin(async move {
            Ok(tonic::server::Grpc::new(Any).max_decoding_message_size(most).streaming(Echo, request).await)
        })
    }
}

fn echo(path: &Path) {
    let listener = UnixListenerStream::new(UnixListener::bind(path).unwrap());
    tokio::spawn(Server::builder().add_service(Echo).serve_with_incoming(listener));
}

#[tokio::test]
async fn what_a_relay_would_not_understand_passes_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let follower = World::unix(dir.path(), None);
    let leader = dir.path().join("leader");
    echo(&leader);
    let address = format!("unix:{}", leader.display());
    follower.desk.send_replace(Desk::Elsewhere(address.parse().unwrap()));

    // No messages of this protocol, some of them of no protocol at all, up to the largest.
    let sizes = [0, 1, 5, 70_000, 1 << 20, 3];
    let sent: Vec<Bytes> = (0_u8..).zip(sizes).map(|(at, size)| vec![0xf0 | at; size].into()).collect();
    let (say, messages) = mpsc::channel(1);
    let mut client = tonic::client::Grpc::new(follower.channel().await).max_decoding_message_size(16 << 20);
    client.ready().await.unwrap();
    let request = Request::new(ReceiverStream::new(messages));
    let answer = client.streaming(request, PathAndQuery::from_static(METHOD), Any).await;
    let mut heard = answer.unwrap().into_inner();
    for message in &sent {
        say.send(message.clone()).await.unwrap();
        assert!(heard.message().await.unwrap().as_ref() == Some(message), "{} bytes", message.len());
    }
    // Everything may be in flight at the same time.
    let saying = tokio::spawn({
        let sent = sent.clone();
        async move {
            for message in sent {
                say.send(message).await.unwrap();
            }
        }
    });
    for message in &sent {
        assert!(heard.message().await.unwrap().as_ref() == Some(message), "{} bytes", message.len());
    }
    saying.await.unwrap();
    assert_eq!(heard.message().await.unwrap(), None);
}
