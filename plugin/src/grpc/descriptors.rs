//! Descriptors of the public API's messages and methods.

use std::sync::LazyLock;

use fiberlb_proto::FILE_DESCRIPTOR_SET;
use prost_reflect::{DescriptorPool, MessageDescriptor};

/// Empty if they could not be read, which a test rules out.
static DESCRIPTORS: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap_or_default());

/// Descriptor of a message by its full name.
pub(super) fn descriptor(name: &str) -> Option<MessageDescriptor> {
    DESCRIPTORS.get_message_by_name(name)
}

/// Message that a method takes, by the path of its calls (`/package.Service/Method`); `None`: no method of the public API, or
/// one that takes a stream.
pub(super) fn input_of(path: &str) -> Option<MessageDescriptor> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let service = DESCRIPTORS.get_service_by_name(service)?;
    let method = service.methods().find(|known| known.name() == method)?;
    (!method.is_client_streaming()).then(|| method.input())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_found_by_their_paths() {
        let input = |path| input_of(path).map(|message| message.full_name().to_owned());
        let apply = input("/fiberlb.v1.LoadBalancerService/ApplyLoadBalancer");
        assert_eq!(apply.as_deref(), Some("fiberlb.v1.ApplyLoadBalancerRequest"));
        for path in ["", "/", "/fiberlb.v1.LoadBalancerService", "/grpc.health.v1.Health/Check", "/a/b/c"] {
            assert_eq!(input(path), None, "{path}");
        }
    }
}
