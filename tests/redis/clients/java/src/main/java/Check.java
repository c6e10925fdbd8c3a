import io.lettuce.core.ClientOptions;
import io.lettuce.core.RedisClient;
import io.lettuce.core.RedisCommandExecutionException;
import io.lettuce.core.RedisURI;
import io.lettuce.core.protocol.ProtocolVersion;
import java.util.ArrayList;
import java.util.Arrays;
import redis.clients.jedis.Jedis;
import redis.clients.jedis.exceptions.JedisDataException;

/** jedis and lettuce against a node. */
public class Check {
    static void must(boolean ok, String what) {
        if (!ok) throw new AssertionError(what);
    }

    static void jedis(int port) {
        try (var client = new Jedis("127.0.0.1", port)) {
            must(client.get("files:alice").equals("value of alice"), "get");
            must(client.get("files:missing") == null, "missing");
            must(client.get("files:large").equals("x".repeat(300_000)), "large");
            must(client.mget("files:alice", "files:missing").equals(Arrays.asList("value of alice", null)), "mget");
            must(client.exists("files:alice", "files:missing") == 1, "exists");
            must(client.ttl("files:alice") > 0, "ttl");
            must(client.del("files:alice") == 1, "del");
            var pipeline = client.pipelined();
            for (int i = 0; i < 500; i++) pipeline.get("files:alice");
            for (var value : pipeline.syncAndReturnAll()) must(value.equals("value of alice"), "pipeline");
            try {
                client.set("files:alice", "v");
                throw new AssertionError("a value was set");
            } catch (JedisDataException error) {
                must(error.getMessage().contains("read-through"), error.getMessage());
            }
        }
    }

    static void lettuce(int port, ProtocolVersion version) throws Exception {
        var client = RedisClient.create(RedisURI.builder().withHost("127.0.0.1").withPort(port).withClientName("lettuce").build());
        client.setOptions(ClientOptions.builder().protocolVersion(version).build());
        try (var connection = client.connect()) {
            var sync = connection.sync();
            must(sync.get("files:alice").equals("value of alice"), "get");
            must(sync.get("files:missing") == null, "missing");
            must(sync.get("files:large").equals("x".repeat(300_000)), "large");
            must(sync.mget("files:alice", "files:missing").get(1).isEmpty(), "mget");
            must(sync.ttl("files:alice") > 0, "ttl");
            must(sync.del("files:alice") == 1, "del");
            must(sync.clientGetname().equals("lettuce"), "name");
            var gets = new ArrayList<io.lettuce.core.RedisFuture<String>>();
            for (int i = 0; i < 500; i++) gets.add(connection.async().get("files:alice"));
            for (var get : gets) must(get.get().equals("value of alice"), "pipeline");
            try {
                sync.set("files:alice", "v");
                throw new AssertionError("a value was set");
            } catch (RedisCommandExecutionException error) {
                must(error.getMessage().contains("read-through"), error.getMessage());
            }
        } finally {
            client.shutdown();
        }
    }

    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[0]);
        jedis(port);
        System.out.println("jedis: ok");
        lettuce(port, ProtocolVersion.RESP2);
        lettuce(port, ProtocolVersion.RESP3);
        System.out.println("lettuce: ok");
    }
}
