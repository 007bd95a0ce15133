//! Every text of every request of the public API, at its longest and of characters that logs have to escape: found by the
//! descriptors, so that a new one is among them.

use fiberlb_proto::FILE_DESCRIPTOR_SET;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

use crate::world::{SOON, World, check_refusal};

/// Bytes of a text: a log that showed it would escape each into six.
const TEXT: usize = 1 << 20;
/// Most bytes of a line of the log.
const LINE: usize = 4 << 10;

/// Paths to all texts below a message. No message of the API holds itself.
fn texts(message: &MessageDescriptor) -> Vec<Vec<FieldDescriptor>> {
    let mut found = Vec::new();
    for field in message.fields() {
        match field.kind() {
            Kind::String => found.push(vec![field]),
            Kind::Message(below) => {
                found.extend(texts(&below).into_iter().map(|path| [vec![field.clone()], path].concat()));
            }
            _ => {}
        }
    }
    found
}

/// A message with this text alone.
fn with_text(path: &[FieldDescriptor], text: &[u8]) -> Vec<u8> {
    path.iter().rev().fold(text.to_vec(), |inner, field| {
        let mut message = Vec::with_capacity(inner.len() + 8);
        encode_key(field.number(), WireType::LengthDelimited, &mut message);
        encode_varint(inner.len() as u64, &mut message);
        message.extend(inner);
        message
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-hostile"]
async fn hostile_texts_are_refused_soon_and_make_no_long_lines_in_the_log() {
    let world = World::start().await;
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    let text = vec![1_u8; TEXT];
    let mut count = 0;
    for service in pool.services() {
        for method in service.methods().filter(|method| !method.is_server_streaming()) {
            for path in texts(&method.input()) {
                let names: Vec<&str> = path.iter().map(FieldDescriptor::name).collect();
                let what = format!("{} {}", method.name(), names.join("."));
                let wire = format!("/{}/{}", service.full_name(), method.name());
                let (answer, took) = world.send(&wire, with_text(&path, &text)).await;
                // There is no northbound database in this world: names of networks cannot be looked up.
                if let Err(refused) = &answer
                    && refused.code() != tonic::Code::Unavailable
                {
                    check_refusal(&what, refused);
                }
                assert!(took < SOON, "{what}: {took:?}");
                count += 1;
            }
        }
    }
    let log = world.log();
    let longest = log.iter().map(String::len).max().unwrap_or_default();
    println!(
        "{count} texts of {TEXT} bytes made {} lines in the log, the longest of {longest} bytes",
        log.len()
    );
    assert!(count > 80 && log.len() > 20, "{count} texts, {} lines", log.len());
    assert!(longest <= LINE, "{:?}", log.iter().find(|line| line.len() > LINE).map(|line| line.get(..LINE)));
    world.check_memory();
}
