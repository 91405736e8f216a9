// Immich's server has no client in a registry: these are its calls, as it makes them with Node's fetch. The first check holds the
// bytes that leave this process against those that were recorded.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { once } from 'node:events';
import {
  client, image, imageVector, lockedService, long, names, same, startService, textVector, texts, webp,
} from './harness.mjs';

const clip = 'ViT-B-32__openai';

// What Immich sends: a task and an image, or a task and a text.
async function predict(url, entries, { path, text }) {
  const form = new FormData();
  form.append('entries', JSON.stringify(entries));
  if (path) {
    form.append('image', new Blob([image(path)]));
  } else {
    form.append('text', text);
  }
  const response = await fetch(new URL('/predict', url), { method: 'POST', body: form });
  return { ok: response.ok, status: response.status, body: response.ok ? await response.json() : undefined };
}
const visual = (modelName = clip) => ({ clip: { visual: { modelName } } });
const textual = (modelName = clip, options = {}) => ({ clip: { textual: { modelName, options } } });
const faces = {
  'facial-recognition': {
    detection: { modelName: 'buffalo_l', options: { minScore: 0.7 } },
    recognition: { modelName: 'buffalo_l' },
  },
};
const ocr = {
  ocr: {
    detection: { modelName: 'PP-OCRv5_mobile', options: { minScore: 0.5, maxResolution: 736 } },
    recognition: { modelName: 'PP-OCRv5_mobile', options: { minScore: 0.8 } },
  },
};

// A vector is a string that goes into the database as it is: plain or exponent numbers, as many as the model has.
function vector(answer) {
  assert.equal(typeof answer.clip, 'string', `clip is ${typeof answer.clip}`);
  assert.match(answer.clip, /^\[-?\d[^\[\]NI]*\]$/);
  return JSON.parse(answer.clip);
}

// upstream is a stand-in for Immich's own service: it keeps what it gets and answers with a face.
async function upstream() {
  const seen = [];
  const server = createServer(async (request, response) => {
    const body = Buffer.concat(await request.toArray());
    seen.push({ path: request.url, type: request.headers['content-type'], body });
    const status = body.includes('PP-OCR') ? 500 : 200;
    response
      .writeHead(status, { 'content-type': 'application/json' })
      .end(JSON.stringify({ 'facial-recognition': [], imageHeight: 1, imageWidth: 2, n: seen.length }));
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return { seen, url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

client({ name: 'Immich server', version: 'v3', contract: 'Immich' }, async ({ url, check }) => {
  await check('the bytes are those that were recorded', async () => {
    const { seen, url: to, close } = await upstream();
    try {
      await predict(to, visual(), { path: names[0] });
      const boundary = /boundary=(.+)$/.exec(seen[0].type)[1];
      const head =
        `--${boundary}\r\nContent-Disposition: form-data; name="entries"\r\n\r\n{"clip":{"visual":{"modelName":"${clip}"}}}\r\n` +
        `--${boundary}\r\nContent-Disposition: form-data; name="image"; filename="blob"\r\n` +
        `Content-Type: application/octet-stream\r\n\r\n`;
      assert.equal(seen[0].body.subarray(0, head.length).toString(), head);
    } finally {
      close();
    }
  });
  await check('GET / and /ping', async () => {
    const ping = await fetch(new URL('/ping', `${url}/a/base/path`));
    assert.deepEqual([ping.ok, await ping.text()], [true, 'pong']);
  });
  for (const [what, path] of [
    ['a JPEG preview', names[0]],
    ['a WebP preview', webp],
  ]) {
    await check(what, async () => {
      const [width, height] = size(image(path));
      const { body } = await predict(url, visual(), { path });
      same(vector(body), await imageVector(path));
      assert.deepEqual([body.imageWidth, body.imageHeight], [width, height]);
    });
  }
  await check('a text, with and without a language', async () => {
    for (const options of [{}, { language: 'de' }, null]) {
      same(vector((await predict(url, textual(clip, options), { text: texts[0] })).body), await textVector(texts[0]));
    }
  });
  await check('a long text is cut', async () =>
    assert.equal(vector((await predict(url, textual(), { text: long })).body).length, 512),
  );
  await check('other spellings of the model', async () => {
    for (const name of ['ViT-B-32::openai', 'immich-app/ViT-B-32__openai']) {
      same(vector((await predict(url, textual(name), { text: texts[0] })).body), await textVector(texts[0]));
    }
  });
  await check('never an answer for another model', async () => {
    for (const name of ['ViT-B-16__openai', 'ViT-B-32__laion2b-s34b-b79k', 'XLM-Roberta-Base-ViT-B-32__laion5b_s13b_b90k']) {
      assert.equal((await predict(url, textual(name), { text: 'x' })).ok, false, name);
    }
  });
  await check('faces and OCR without an upstream are refused', async () => {
    for (const entries of [faces, ocr]) {
      assert.equal((await predict(url, entries, { path: names[0] })).ok, false);
    }
  });
  await check('neither image nor text, no entries', async () => {
    const only = async (name, value) => {
      const form = new FormData();
      form.append(name, value);
      return (await fetch(new URL('/predict', url), { method: 'POST', body: form })).status;
    };
    assert.deepEqual(
      [await only('entries', JSON.stringify(visual())), await only('text', 'x'), await only('entries', '{')],
      [400, 422, 422],
    );
  });

  await check('vectors of a simulated chip, which mean nothing, do not get into an index', async () => {
    for (const [settings, status] of [
      [[], 503],
      [['sim.serve_hash=true'], 200],
    ]) {
      const { url: made, stop } = await startService(settings, { backend: 'sim' });
      try {
        assert.equal((await fetch(new URL('/ping', made))).status, status);
        assert.equal((await predict(made, visual(), { path: names[0] })).status, status);
        assert.equal((await predict(made, textual(), { text: texts[0] })).status, status);
      } finally {
        await stop();
      }
    }
  });

  await check('its own listener needs no key, and serves nothing else', async () => {
    const { url: main, log, stop } = await lockedService(['compat.immich.listen=127.0.0.1:0']);
    try {
      const own = `http://${/\bimmich"?[=:]"?([0-9.:]+)/.exec(log.find((l) => l.includes('serving')))[1]}`;
      assert.deepEqual(await (await fetch(own)).json(), { message: 'Immich ML' });
      assert.equal(await (await fetch(new URL('/ping', own))).text(), 'pong');
      same(vector((await predict(own, visual(), { path: names[0] })).body), await imageVector(names[0]));
      assert.equal((await fetch(new URL('/v1/models', own))).status, 404);
      assert.equal(await (await fetch(new URL('/ping', main))).text(), 'pong');
      assert.equal((await predict(main, visual(), { path: names[0] })).status, 401);
    } finally {
      await stop();
    }
  });

  const other = await upstream();
  const service = await startService([`compat.immich.upstream=${other.url}`]);
  try {
    await check('with an upstream: CLIP is answered here', async () => {
      same(vector((await predict(service.url, visual(), { path: names[0] })).body), await imageVector(names[0]));
      assert.equal(other.seen.length, 0);
    });
    await check('with an upstream: faces and other models go there as they are, and their answer comes back', async () => {
      assert.equal((await predict(service.url, faces, { path: names[0] })).body.n, 1);
      assert.equal((await predict(service.url, visual('ViT-B-16__openai'), { path: names[0] })).body.n, 2);
      assert.deepEqual(
        other.seen.map((s) => s.path),
        ['/predict', '/predict'],
      );
      for (const s of other.seen) {
        assert.ok(s.body.includes(image(names[0])), 'the image has changed on the way');
        assert.match(s.type, /^multipart\/form-data; boundary=/);
      }
    });
    await check('with an upstream: its failure is passed on', async () =>
      assert.equal((await predict(service.url, ocr, { path: names[0] })).status, 500),
    );
  } finally {
    await service.stop();
    other.close();
  }
});

// size reads width and height of a JPEG or a lossy WebP.
function size(bytes) {
  if (bytes.toString('latin1', 8, 15) === 'WEBPVP8') {
    return [bytes.readUInt16LE(26) & 0x3fff, bytes.readUInt16LE(28) & 0x3fff];
  }
  for (let at = 2; ; at += 2 + bytes.readUInt16BE(at + 2)) {
    if (bytes[at + 1] >= 0xc0 && bytes[at + 1] <= 0xc3) {
      return [bytes.readUInt16BE(at + 7), bytes.readUInt16BE(at + 5)];
    }
  }
}
