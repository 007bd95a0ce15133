//! Every list of every request of the public API, at its most within one message: found by the descriptors, so that a new one
//! is among them.

use std::time::Duration;

use fiberlb_proto::FILE_DESCRIPTOR_SET;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor};

use crate::world::{MESSAGE, SOON, World, check_refusal};

/// Fields that lead to a list, the list last.
type Path = Vec<FieldDescriptor>;

/// Paths to all lists below a message. No message of the API holds itself.
fn lists(message: &MessageDescriptor) -> Vec<Path> {
    let mut found = Vec::new();
    for field in message.fields() {
        if field.is_list() {
            found.push(vec![field.clone()]);
        }
        if let Some(below) = field.kind().as_message() {
            found.extend(lists(below).into_iter().map(|path| [vec![field.clone()], path].concat()));
        }
    }
    found
}

/// A message of so many bytes at most that is full of the smallest elements of the list at a path.
fn filled(path: &Path, most: usize) -> Vec<u8> {
    let (list, above) = path.split_last().unwrap();
    let mut element = Vec::new();
    encode_key(list.number(), WireType::LengthDelimited, &mut element);
    element.push(0);
    // Each level has a key of at most two bytes and a length of at most four.
    let room = most - 8 * path.len();
    let mut message = if list.is_packed() {
        let mut packed = Vec::new();
        encode_key(list.number(), WireType::LengthDelimited, &mut packed);
        encode_varint(room as u64, &mut packed);
        packed.resize(packed.len() + room, 0);
        packed
    } else {
        element.repeat(room / element.len())
    };
    for field in above.iter().rev() {
        let mut outer = Vec::with_capacity(message.len() + 8);
        encode_key(field.number(), WireType::LengthDelimited, &mut outer);
        encode_varint(message.len() as u64, &mut outer);
        outer.append(&mut message);
        message = outer;
    }
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-hostile"]
async fn hostile_lists_are_refused_soon_and_hold_no_memory() {
    let world = World::start().await;
    let other = world.create("10.0.0.1").await;
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    let (mut count, mut longest) = (0, Duration::ZERO);
    for service in pool.services() {
        for method in service.methods().filter(|method| !method.is_server_streaming()) {
            for path in lists(&method.input()) {
                let names: Vec<&str> = path.iter().map(FieldDescriptor::name).collect();
                let what = format!("{} {}", method.name(), names.join("."));
                let latency = world.watch_latency(other.clone());
                let wire = format!("/{}/{}", service.full_name(), method.name());
                let (answer, took) = world.send(&wire, filled(&path, MESSAGE)).await;
                let latency = latency.longest().await;
                println!(
                    "{what}: {:?}, {took:.1?}; another client waited {latency:.1?}",
                    answer.as_ref().map_err(tonic::Status::code)
                );
                // Filters of lists, and what only the server sets, may be ignored.
                if let Err(refused) = &answer {
                    check_refusal(&what, refused);
                }
                assert!(took < SOON && latency < SOON, "{what}: {took:?}, another client waited {latency:?}");
                assert!(
                    answer.is_err() || names.len() == 1 || what.contains("proxy_node_ids"),
                    "{what}: {answer:?}"
                );
                (count, longest) = (count + 1, longest.max(took));
            }
        }
    }
    println!("{count} lists, the slowest took {longest:.1?}");
    assert!(count > 40, "{count} lists");
    world.check_memory();
}
