"""redis-py against a node: `check.py PORT`."""

import sys

import redis

LARGE = b"x" * 300_000


def check(port, protocol):
    client = redis.Redis(port=port, protocol=protocol, client_name="py")
    assert client.get("files:alice") == b"value of alice"
    assert client.get("files:missing") is None
    assert client.get("files:large") == LARGE
    assert client.mget("files:alice", "files:missing", "files:bob") == [b"value of alice", None, b"value of bob"]
    assert client.exists("files:alice", "files:missing") == 1
    assert client.strlen("files:large") == 300_000
    assert 0 < client.ttl("files:alice") <= 60
    assert client.pttl("files:missing") == -2
    assert client.delete("files:alice", "files:bob") == 2
    assert client.ping() and client.echo("a b") == b"a b"
    assert client.client_getname() in (b"py", "py")
    assert client.client_id() > 0
    assert client.info()["role"] == "master"
    pipeline = client.pipeline(transaction=False)
    for _ in range(500):
        pipeline.get("files:alice").get("files:missing").exists("files:bob")
    assert pipeline.execute() == [b"value of alice", None, 1] * 500
    try:
        client.set("files:alice", "v")
        raise AssertionError("a value was set")
    except redis.ResponseError as error:
        assert "read-through" in str(error), error
    try:
        client.get("strangers:alice")
        raise AssertionError("there is no such group")
    except redis.ResponseError as error:
        assert "unknown_group" in str(error), error
    client.close()


for protocol in (2, 3):
    check(int(sys.argv[1]), protocol)
print(f"redis-py {redis.__version__}: ok")
