// Runs the public test suite for HTTP caches (http-tests/cache-tests) against a node, and prints
// what came of each group of tests.
//
//   node run.mjs SUITE GAOCACHE [TEST]
//
// The suite expects a proxy. A node has a key instead of a request, so this script stands in for
// what is around it: what the suite keeps books by (its configuration, the number of a request)
// goes past the node, and all that the tests are about goes through it.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const [suite, gaocache, only] = process.argv.slice(2)
const load = file => import(pathToFileURL(path.join(suite, file)))
const children = []
const work = mkdtempSync(path.join(tmpdir(), 'cache-tests-'))
process.on('exit', () => {
  children.forEach(child => child.kill('SIGKILL'))
  rmSync(work, { recursive: true, force: true })
})

function freePort () {
  return new Promise(resolve => {
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
}

async function until (what, isDone) {
  for (let attempt = 0; attempt < 600; attempt++) {
    if (await isDone().catch(() => false)) return
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  throw new Error(`${what} does not start`)
}

const [serverPort, originPort, httpPort, grpcPort, peerPort, adminPort] =
  await Promise.all(Array.from({ length: 6 }, freePort))

// The suite's own server.
children.push(spawn(process.execPath, ['server/server.mjs'], {
  cwd: suite,
  stdio: 'ignore',
  env: {
    ...process.env,
    npm_config_protocol: 'http',
    npm_config_port: String(serverPort),
    npm_config_pidfile: path.join(work, 'pid')
  }
}))
const server = `http://localhost:${serverPort}`
await until('the server of the suite', async () => (await fetch(server)).ok)

// The origin of the node: that server, which is told the number of the request.
const current = new Map()
http.createServer((request, response) => {
  const uuid = request.url.split(/[/?]/)[2]
  const headers = { ...request.headers, ...current.get(uuid), host: `localhost:${serverPort}` }
  const passed = http.request(server + request.url, { method: request.method, headers }, from => {
    response.writeHead(from.statusCode, from.statusMessage, from.rawHeaders)
    from.pipe(response)
    from.on('error', () => response.destroy())
  })
  passed.on('error', () => response.destroy())
  request.pipe(passed)
}).listen(originPort, '127.0.0.1')

// What the suite's books and tests look for in responses.
const keep = ['Cache-Control', 'Server-Base-Url', 'Server-Request-Count', 'Client-Request-Count',
  'Server-Now', 'Request-Numbers', 'Capability-Seen', 'Test-Header', 'A', 'B', 'Expires', 'Pragma',
  'Content-Location', 'Content-MD5', 'Content-Security-Policy', 'Clear-Site-Data', 'Public-Key-Pins',
  'X-Frame-Options', 'X-XSS-Protection', 'X-Test-Header', 'Content-Foo', 'X-Content-Foo', 'Vary']
writeFileSync(path.join(work, 'gaocache.toml'), `
node.id = "cache-tests"
registry.kind = "memory"
grpc.listen = "127.0.0.1:${grpcPort}"
peer.listen = "127.0.0.1:${peerPort}"
http.listen = "127.0.0.1:${httpPort}"
admin.listen = "127.0.0.1:${adminPort}"
cache.capacity = "64MiB"
auth.anonymous = ["read", "remove"]

[[groups]]
name = "suite"
# What says nothing of its life has none.
ttl_seconds = 0.001
query = "append"
# Values that have expired are kept to be renewed; see docs/freshness.md.
stale_if_error_seconds = 60
[groups.origin]
kind = "http"
url = "http://127.0.0.1:${originPort}/test/{+key}"
retries = 0
timeout_seconds = 10
honour_cache_control = true
keep_headers = ${JSON.stringify(keep)}
`)
const node = spawn(gaocache, ['serve', '--config', path.join(work, 'gaocache.toml')],
  { stdio: ['ignore', 'ignore', 'pipe'] })
let told = ''
node.stderr.on('data', data => { told += data })
children.push(node)
await until('the node', async () => {
  if (node.exitCode !== null) throw new Error(told)
  return (await fetch(`http://127.0.0.1:${adminPort}/readyz`)).ok
}).catch(error => { console.error(told); throw error })

// What the suite's client sends. Its books go to its server; DELETE and GET go to the node.
const { default: suiteFetch } = await import(
  pathToFileURL(path.join(suite, '..', 'node-fetch', 'lib', 'index.mjs')))
async function throughNode (url, init = {}) {
  const { pathname, search } = new URL(url)
  const [, what, uuid, ...rest] = pathname.split('/')
  if (what !== 'test') return suiteFetch(url, init)
  const header = name => init.headers.find(it => it[0].toLowerCase() === name)?.[1]
  current.set(uuid, { 'req-num': header('req-num'), 'test-id': header('test-id') })
  const key = [uuid, ...rest].join('/') + search
  return suiteFetch(`http://127.0.0.1:${httpPort}/v1/suite/${key}`, init)
}

const { runTests, getResults } = await load('client/runner.mjs')
const { default: all } = await load('tests/index.mjs')
const suites = all.map(it => ({
  ...it,
  tests: it.tests.filter(test => !test.browser_only && (!only || test.id === only))
}))
await runTests(suites, throughNode, false, server)

// A test says what it is: a requirement (by default), an optimization, or a look at what is done.
const results = getResults()
const outcome = test => {
  const result = results[test.id]
  if (result === true) return 'passed'
  if (result?.[0] === 'Setup') return 'not applicable'
  return 'failed'
}
const kinds = { required: [0, 0, 0], optimal: [0, 0, 0], check: [0, 0, 0] }
const place = ['passed', 'failed', 'not applicable']
for (const { name, tests } of suites) {
  const counts = [0, 0, 0]
  for (const test of tests) {
    const at = place.indexOf(outcome(test))
    counts[at]++
    kinds[test.kind ?? 'required'][at]++
  }
  console.log(`${name}: ${counts.map((count, at) => `${count} ${place[at]}`).join(', ')}`)
}
console.log()
for (const [kind, counts] of Object.entries(kinds)) {
  console.log(`${kind}: ${counts.map((count, at) => `${count} ${place[at]}`).join(', ')}`)
}
console.log()
for (const { name, tests } of suites) {
  for (const test of tests.filter(it => outcome(it) === 'failed')) {
    const why = results[test.id]?.[1]
    console.log(`failed: ${test.kind ?? 'required'}: ${name}: ${test.id}: ${test.name}: ${why}`)
  }
}
process.exit(0)
