// ioredis against a node: `node check.mjs PORT`.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import Redis from "ioredis";

const { version } = createRequire(import.meta.url)("ioredis/package.json");
const client = new Redis({ port: Number(process.argv[2]), connectionName: "js", maxRetriesPerRequest: 1 });
assert.equal(await client.get("files:alice"), "value of alice");
assert.equal(await client.get("files:missing"), null);
assert.equal(await client.get("files:large"), "x".repeat(300_000));
const many = await client.mget("files:alice", "files:missing", "files:bob");
assert.deepEqual(many, ["value of alice", null, "value of bob"]);
assert.equal(await client.exists("files:alice", "files:missing"), 1);
const ttl = await client.ttl("files:alice");
assert.ok(ttl > 0 && ttl <= 60, `${ttl}`);
assert.equal(await client.del("files:alice", "files:bob"), 2);
assert.equal(await client.client("GETNAME"), "js");
const pipeline = client.pipeline();
for (let i = 0; i < 500; i++) pipeline.get("files:alice");
for (const [error, value] of await pipeline.exec()) assert.deepEqual([error, value], [null, "value of alice"]);
await assert.rejects(client.set("files:alice", "v"), /read-through/);
await client.quit();
console.log(`ioredis ${version}: ok`);
