// What the suites in this folder share: a registry of clients with their checks, services with the demo model, and the vectors
// that the service's own interface gives, against which those of every client are held.
//
// A file NAME.test.mjs calls client(); see run.mjs.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export const here = path.dirname(fileURLToPath(import.meta.url));
export const [program, root] = process.argv.slice(2, 4).map((p) => path.resolve(p));
export const wanted = process.argv.slice(4);
const patience = 300_000; // milliseconds for one check, after which it hangs

// Names under which clients know a model; the demo model answers to each of them here.
export const aliases = [
  'clip-vit-b-32',
  'openai/clip-vit-base-patch32',
  'jina-clip-v1',
  'text-embedding-3-small',
  'ViT-B-32__openai',
  'ViT-B-32',
  'Qdrant/clip-ViT-B-32-text',
  'Qdrant/clip-ViT-B-32-vision',
];
export const model = aliases[0];
export const dimension = 512;

export const texts = ['a photo of a cat', 'a photo of a dog', 'pizza', 'Ein Fahrrad vor einem Café — 自行车'];
export const long = `${'a very long description of one cat that sleeps on a red sofa, '.repeat(20)}and wakes up`;
export const names = ['cat.jpg', 'dog.jpg', 'pizza.jpg', 'guitar.jpg'];
const file = (name) => (name.includes('/') ? path.join(root, name) : path.join(root, 'hailo/demo/samples', name));
export const image = (name) => readFileSync(file(name));
export const imagePath = file;
export const webp = 'stages/decode/testdata/pil/lossy.webp';
export const base64 = (name) => image(name).toString('base64');
export const dataURI = (name) => `data:image/jpeg;base64,${base64(name)}`;

const lines = []; // of the table
const clients = [];

// client registers a client or a script: its name and contract for the table, its package of npm or else its version. f gets
// {url, check, skip}; check(what, f) runs f and keeps what it throws, skip(reason) leaves the line without a verdict.
export function client({ name, package: npm, version, contract }, f) {
  clients.push({ name, npm, version, contract, f });
}

// startService starts a service with the demo model on a free port, with an empty state folder and settings as "key=value". It
// returns {url, log, stop()}; log has the lines that it has written so far.
export async function startService(settings = [], { config = '', backend = 'cpu' } = {}) {
  const state = await mkdtemp(path.join(tmpdir(), 'hailo-clip-conformance-'));
  const configuration = path.join(state, 'config.yaml');
  await writeFile(configuration, config);
  const set = [`compat.aliases=${aliases.join(',')}`, ...settings].flatMap((s) => ['--set', s]);
  const args = [
    '--config',
    configuration,
    '--model',
    'demo',
    '--backend',
    backend,
    '--host',
    '127.0.0.1',
    '--port',
    '0',
    '--state-dir',
    state,
  ];
  const child = spawn(program, ['serve', ...args, ...set], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, HAILO_CLIP_ADMIN_LISTEN: '127.0.0.1:0' },
  });
  const ended = new Promise((resolve) => child.on('exit', resolve)).finally(() => rm(state, { recursive: true, force: true }));
  const log = [];
  const url = await new Promise((resolve, reject) => {
    createInterface(child.stderr).on('line', (line) => {
      log.push(line);
      const found = /"url":"(http[^"]+)"|\burl=(http\S+)/.exec(line);
      if (found && line.includes('serving')) {
        resolve(found[1] ?? found[2]);
      }
    });
    ended.then((code) => reject(new Error(`the service has ended with ${code}:\n${log.join('\n')}`)));
  });
  const stop = () => {
    child.kill('SIGTERM');
    return ended;
  };
  return { url, log, stop };
}

// lockedService starts a service that wants a key, which is in the answer, too.
export async function lockedService(settings = []) {
  const key = randomBytes(32).toString('hex');
  const hash = createHash('sha256').update(key).digest('hex');
  return {
    key,
    ...(await startService(settings, { config: `access:\n  keys:\n    - name: client\n      hash: sha256:${hash}\n` })),
  };
}

// chip starts a service with a simulated chip; tell(fault) makes that fail in some way, see "hailo-clip npu-sim --help".
export async function chip(settings = []) {
  const folder = await mkdtemp(path.join(tmpdir(), 'hailo-clip-chip-'));
  const control = path.join(folder, 'control');
  const started = await startService([...settings, `sim.arguments=--control ${control}`], { backend: 'sim' });
  const tell = async (fault) => {
    const socket = connect(control);
    socket.end(`${fault}\n`);
    const [said] = await once(socket, 'data');
    assert.equal(said.toString(), 'ok\n');
  };
  const stop = () => started.stop().finally(() => rm(folder, { recursive: true, force: true }));
  return { ...started, tell, stop };
}

let service; // the one that every suite asks
const known = new Map();

async function ask(route, body) {
  const key = `${route} ${JSON.stringify(body)}`;
  if (!known.has(key)) {
    known.set(
      key,
      post(route, body).then(({ status, body: answer }) => {
        assert.equal(status, 200, `${route}: ${JSON.stringify(answer)}`);
        return answer.embedding;
      }),
    );
  }
  return known.get(key);
}

// textVector and imageVector are what the service's own interface answers.
export const textVector = (text) => ask('/v1/embed/text', { text });
export const imageVector = (name) => ask('/v1/embed/image', { image: base64(name) });

// tokens is how many tokens the model reads of all texts together.
export const tokens = async (all) =>
  (await post('/v1/tokens', { prompts: all })).body.prompts.reduce((sum, p) => sum + p.tokens, 0);

// post sends JSON, a form or bytes, and returns {status, headers, body}, body parsed where it is JSON.
export async function post(route, body, { headers = {}, url = service.url, method = 'POST' } = {}) {
  const raw = body instanceof FormData || body instanceof Uint8Array || typeof body === 'string' || body === undefined;
  const response = await fetch(url + route, {
    method,
    body: raw ? body : JSON.stringify(body),
    headers: raw ? headers : { 'content-type': 'application/json', ...headers },
  });
  const text = await response.text();
  const json = text && response.headers.get('content-type')?.startsWith('application/json');
  return { status: response.status, headers: response.headers, body: json ? JSON.parse(text) : text };
}
export const get = (route, options = {}) => post(route, undefined, { method: 'GET', ...options });

// same fails unless vector is the reference, number by number to 1e-5 (a batch is summed in another order), and of unit length.
export function same(vector, reference, what = '') {
  assert.ok(
    Array.isArray(vector) || vector instanceof Float32Array,
    `${what} no vector but ${JSON.stringify(vector)?.slice(0, 200)}`,
  );
  assert.equal(vector.length, reference.length, `${what} dimension`);
  const off = reference.reduce((most, x, i) => Math.max(most, Math.abs(x - vector[i])), 0);
  assert.ok(off <= 1e-5, `${what} differs by ${off}`);
  const length = Math.hypot(...vector);
  assert.ok(Math.abs(length - 1) < 1e-4, `${what} has the length ${length}`);
}

// sameTexts and sameImages hold vectors against those of texts and of images, in their order.
async function sameAll(vectors, items, reference) {
  assert.equal(vectors?.length, items.length, 'number of vectors');
  for (const [i, item] of items.entries()) {
    same(vectors[i], await reference(item), `of ${item}:`);
  }
}
export const sameTexts = (vectors, items = texts) => sameAll(vectors, items, textVector);
export const sameImages = (vectors, items = names) => sameAll(vectors, items, imageVector);

// floats reads base64 of float32 little-endian.
export function floats(text) {
  assert.equal(typeof text, 'string');
  const bytes = Buffer.from(text, 'base64');
  return Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));
}

export const cosine = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);

// fails returns what f throws.
export async function fails(f) {
  try {
    await f();
  } catch (err) {
    return err;
  }
  assert.fail('no error');
}

// counting is fetch that counts its calls, and fails after so many.
export function counting(most = Infinity) {
  const f = (...args) => {
    if (++f.calls > most) {
      throw new Error(`it asks more than ${most} times`);
    }
    return fetch(...args);
  };
  f.calls = 0;
  return f;
}

// line adds a line to the table: green without reasons, and with a reason to skip neither green nor red.
export function line({ name, version = '', contract, checks, reasons = [], skipped = '' }) {
  lines.push({ name, version, contract, checks, reasons, skipped });
}

async function limited(f) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no end in ${patience / 1000} s`)), patience);
  });
  try {
    await Promise.race([f(), late]);
  } finally {
    clearTimeout(timer);
  }
}

const short = (err) =>
  String(err?.message ?? err)
    .replace(/\s+/g, ' ')
    .slice(0, 300);

// run runs the clients of which a part of the name or the contract is wanted (all, if none is).
export async function run() {
  service = await startService();
  try {
    for (const { name, npm, version, contract, f } of clients) {
      if (wanted.length && !wanted.some((w) => `${name} ${contract}`.toLowerCase().includes(w.toLowerCase()))) {
        continue;
      }
      const reasons = [];
      let checks = 0,
        skipped = '';
      const check = async (what, g) => {
        checks++;
        await limited(g).catch((err) => reasons.push(`${what}: ${short(err)}`));
      };
      await f({
        url: service.url,
        check,
        skip: (reason) => {
          skipped = reason;
        },
      }).catch((err) => reasons.push(short(err)));
      line({
        name,
        contract,
        checks,
        reasons,
        skipped,
        version: npm ? JSON.parse(await readFile(path.join(here, 'node_modules', npm, 'package.json'))).version : version,
      });
    }
  } finally {
    await service.stop();
  }
}

// table prints the lines and returns how many are red.
export function table() {
  const head = ['client', 'version', 'contract', 'checks', 'result'];
  const rows = lines.map((l) => [
    l.name,
    l.version,
    l.contract,
    l.reasons.length ? `${Math.max(0, l.checks - l.reasons.length)}/${l.checks}` : `${l.checks}`,
    l.reasons.length ? 'RED' : l.skipped ? `skipped: ${l.skipped}` : l.checks ? 'green' : 'RED',
  ]);
  const widths = head.map((h, i) => Math.max(...[head, ...rows].map((r) => [...r[i]].length)));
  const show = (r) =>
    r
      .map((cell, i) => cell.padEnd(widths[i]))
      .join('  ')
      .trimEnd();
  console.log([show(head), show(widths.map((w) => '-'.repeat(w))), ...rows.map(show)].join('\n'));
  const red = lines.filter((_, i) => rows[i][4] === 'RED');
  for (const l of red) {
    console.log(`\n${l.name}:${(l.reasons.length ? l.reasons : ['no check has run']).map((r) => `\n  ${r}`).join('')}`);
  }
  console.log(`\n${lines.length} clients, ${lines.reduce((n, l) => n + l.checks, 0)} checks, ${red.length} red`);
  return red.length;
}
