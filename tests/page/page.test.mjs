// The admin page in a real browser, against real nodes on a real etcd: the picture follows those who join and leave.
//
//   GAOCACHE=… the program   GAOCACHE_TEST_ETCD=… etcd's   CHROMIUM=… the browser's   PICTURES=… where screenshots go (none without it)

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { createServer as createSocket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

const { GAOCACHE, GAOCACHE_TEST_ETCD = "etcd", CHROMIUM = "/usr/bin/chromium", PICTURES } = process.env;
const processes = [];
let folder, browser, origin, etcdUrl;
const nodes = {};

const freePort = () => new Promise((resolve, reject) => {
  const socket = createSocket();
  socket.on("error", reject);
  socket.listen(0, "127.0.0.1", () => { const { port } = socket.address(); socket.close(() => resolve(port)); });
});

function start(program, args) {
  const child = spawn(program, args, { stdio: "ignore" });
  child.ended = new Promise(resolve => child.on("exit", resolve));
  processes.push(child);
  return child;
}

async function until(what, condition) {
  const bound = Date.now() + 30_000;
  for (;;) {
    try { if (await condition()) return; } catch { /* not there yet */ }
    if (Date.now() > bound) throw new Error(`waited too long: ${what}`);
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}

async function startNode(id, zone) {
  const [grpc, http, admin] = [await freePort(), await freePort(), await freePort()];
  const settings = [
    `node.id=${id}`, `node.zone=${zone}`, "node.worker_threads=1", `grpc.listen=127.0.0.1:${grpc}`, `http.listen=127.0.0.1:${http}`,
    "peer.listen=127.0.0.1:0",
    `admin.listen=127.0.0.1:${admin}`, `registry.etcd.endpoints=${etcdUrl}`, "registry.etcd.lease_ttl_seconds=3",
    `groups=[{ name = "users", ttl_seconds = 600, origin = { kind = "http", url = "http://127.0.0.1:${origin.address().port}/{key}" } }]`,
  ];
  const child = start(GAOCACHE, ["serve", ...settings.flatMap(it => ["--set", it])]);
  nodes[id] = { child, http, admin };
  await until(`${id} is ready`, async () => (await fetch(`http://127.0.0.1:${admin}/readyz`)).ok);
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "gaocache-page-"));
  const [client, peer] = [await freePort(), await freePort()];
  etcdUrl = `http://127.0.0.1:${client}`;
  start(GAOCACHE_TEST_ETCD, ["--data-dir", folder, "--listen-client-urls", etcdUrl, "--advertise-client-urls", etcdUrl,
    "--listen-peer-urls", `http://127.0.0.1:${peer}`, "--initial-advertise-peer-urls", `http://127.0.0.1:${peer}`,
    "--initial-cluster", `default=http://127.0.0.1:${peer}`, "--log-level", "error"]);
  origin = createServer((request, response) => response.end(`value of ${request.url}`));
  await new Promise(resolve => origin.listen(0, "127.0.0.1", resolve));
  for (const [id, zone] of [["cache-0", "a"], ["cache-1", "b"], ["cache-2", "c"]]) await startNode(id, zone);
  for (let key = 0; key < 300; key++) await (await fetch(`http://127.0.0.1:${nodes["cache-0"].http}/v1/users/user-${key % 100}`)).text();
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
});

after(async () => {
  await browser?.close();
  for (const child of processes) child.kill("SIGKILL");
  origin?.close();
  await Promise.all(processes.map(child => child.ended));
  await rm(folder, { recursive: true, force: true });
});

/** A page of cache-0; fails on any error or request to elsewhere. */
async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1100, height: 860 }, ...options });
  const page = await context.newPage();
  const address = `http://127.0.0.1:${nodes["cache-0"].admin}`;
  page.on("pageerror", error => { throw error; });
  page.on("request", request => assert.ok(request.url().startsWith(address), `asked elsewhere: ${request.url()}`));
  await page.goto(`${address}/`);
  await page.waitForFunction(() => document.querySelectorAll("#members tr").length >= 3);
  return page;
}

const slices = page => page.locator("#slices path").count();
const picture = async (page, name) => { if (PICTURES) await page.screenshot({ path: join(PICTURES, `${name}.png`), fullPage: true }); };

test("it shows the ring, the members and the groups", async () => {
  const page = await open();
  assert.equal(await slices(page), 3);
  assert.equal(await page.textContent("#size"), "3");
  assert.equal(await page.textContent("#ready"), "ready");
  const row = await page.locator("#members tr").nth(1).innerText();
  for (const part of ["cache-1", "33.3 %", "serving", "b", "0.1.0"]) assert.ok(row.includes(part), `${part} in ${row}`);
  const lease = await page.locator("#members tr").nth(1).locator("td").nth(5).textContent();
  assert.match(lease, /^[0-9a-f]{8,}$/);
  assert.match(await page.textContent("#lease"), /expires in \d+ s/);
  const group = await page.locator("#groups tr").first().innerText();
  assert.match(group, /users\s+300\s+66\.7 %/);
  assert.ok((await page.locator("#changes li").count()) >= 1);
  const cut = await page.$$eval("section", all => all.filter(it => it.scrollWidth > it.clientWidth).map(it => it.textContent));
  assert.deepEqual(cut, []);
  await picture(page, "page");
});

test("the picture follows who joins and who leaves", async () => {
  const page = await open();
  await startNode("cache-3", "a");
  await page.waitForFunction(() => document.querySelectorAll("#slices path").length === 4);
  // It is in the picture while it joins; its join is told when it serves.
  await page.waitForFunction(() => document.querySelector("#changes li").textContent.includes("joined: cache-3"));
  nodes["cache-3"].child.kill("SIGTERM");
  await page.waitForFunction(() => document.querySelectorAll("#members tr").length === 3);
  assert.equal(await slices(page), 3);
  await page.waitForFunction(() => document.querySelector("#changes li").textContent.includes("left: cache-3"));
});

test("it tells who owns a key, by keyboard alone", async () => {
  const page = await open();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "key");
  await page.keyboard.type("user-1");
  await page.waitForFunction(() => document.getElementById("owners").textContent.startsWith("users: cache-"));
  const told = (await page.textContent("#owners")).replace("users: ", "");
  const answer = await (await fetch(`http://127.0.0.1:${nodes["cache-0"].admin}/ring?key=user-1`)).json();
  assert.equal(told, answer.owners[0].owner);
  assert.match(await page.locator("#members tr.owner").innerText(), new RegExp(told));
});

test("in the dark and on a phone nothing is cut off", async () => {
  const page = await open({ colorScheme: "dark", viewport: { width: 390, height: 800 } });
  const back = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const [red, green, blue] = back.match(/\d+/g).map(Number);
  assert.ok(red + green + blue < 200, back);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(wide <= 0, `${wide} pixels too wide`);
  const cut = await page.$$eval("section", all => all.filter(it => it.scrollWidth > it.clientWidth).map(it => it.textContent));
  assert.deepEqual(cut, []);
  await picture(page, "page-phone-dark");
});

// The last: it ends the node that the others ask.
test("it says so when the connection is lost", async () => {
  const page = await open();
  assert.equal(await page.isVisible("#lost"), false);
  nodes["cache-0"].child.kill("SIGKILL");
  await page.waitForSelector("#lost", { state: "visible" });
});
