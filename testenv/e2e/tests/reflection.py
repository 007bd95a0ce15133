"""A gRPC client that knows nothing of FiberLB but its address: it learns the API from the server's reflection.

Usage: reflection.py HOST:PORT NETWORK_UUID

Calls the five methods of each of the five services once, and says how many that were.
"""

import sys

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


class Client:
    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)
        self.called = 0

    def call(self, service, method, **fields):
        """Calls a method with a request given as JSON, and gives the answer as JSON."""
        descriptor = self.pool.FindServiceByName(f"fiberlb.v1.{service}").FindMethodByName(method)
        request = message_factory.GetMessageClass(descriptor.input_type)()
        json_format.ParseDict(fields, request, descriptor_pool=self.pool)
        answer = message_factory.GetMessageClass(descriptor.output_type)
        stub = self.channel.unary_unary(
            f"/fiberlb.v1.{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        self.called += 1
        return json_format.MessageToDict(stub(request, timeout=10), descriptor_pool=self.pool)


def snake(name):
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name).lstrip("_")


def life(client, kind, **fields):
    """Creates, gets, lists and renames a resource; gives its id."""
    service, key = f"{kind}Service", snake(kind)
    made = client.call(service, f"Create{kind}", **{key: fields})
    got = client.call(service, f"Get{kind}", id=made["id"])
    assert got["id"] == made["id"], got
    listed = client.call(service, f"List{kind}s")
    (found,) = listed.values()
    assert [one["id"] for one in found] == [made["id"]], listed
    renamed = client.call(service, f"Update{kind}", **{key: {"id": made["id"], "name": "renamed"}, "update_mask": "name"})
    assert renamed["name"] == "renamed", renamed
    return made["id"]


def main(address, network):
    client = Client(address)
    services = set(client.database.get_services())
    kinds = ["LoadBalancer", "Listener", "Pool", "Backend", "HealthCheck"]
    expected = {f"fiberlb.v1.{kind}Service" for kind in kinds} | {"grpc.health.v1.Health"}
    assert expected <= services, f"{expected - services} not among {services}"

    root = life(client, "LoadBalancer", name="lb", network=network, vip_address="10.0.1.1")
    pool = life(client, "Pool", load_balancer_id=root, protocol="POOL_PROTOCOL_TCP")
    below = {
        "HealthCheck": life(client, "HealthCheck", pool_id=pool, type="HEALTH_CHECK_TYPE_TCP"),
        "Backend": life(client, "Backend", pool_id=pool, address="10.0.0.1", port=80),
        "Listener": life(
            client,
            "Listener",
            load_balancer_id=root,
            protocol="LISTENER_PROTOCOL_TCP",
            port=80,
            default_pool_id=pool,
        ),
    }
    for kind, resource in below.items():
        client.call(f"{kind}Service", f"Delete{kind}", id=resource)
    client.call("PoolService", "DeletePool", id=pool)
    client.call("LoadBalancerService", "DeleteLoadBalancer", id=root)
    print(f"{client.called} methods")


main(*sys.argv[1:])
