import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import RED from 'node-red';
import { base64, client, image, imageVector, names, same, textVector, texts } from './harness.mjs';

// A flow without an editor: what "source" sends goes through the http request node to "sink", both of which are of this process.
const flow = [
  { id: 'tab', type: 'tab', label: 'conformance' },
  {
    id: 'source',
    z: 'tab',
    type: 'function',
    func: 'return null;',
    initialize: 'global.get("bridge").send = (msg) => node.send(msg);',
    outputs: 1,
    wires: [['request']],
  },
  {
    id: 'request',
    z: 'tab',
    type: 'http request',
    method: 'use',
    ret: 'obj',
    url: '',
    senderr: false,
    headers: [],
    wires: [['sink']],
  },
  { id: 'sink', z: 'tab', type: 'function', func: 'global.get("bridge").got(msg); return null;', outputs: 0, wires: [] },
];

client({ name: 'node-red, http request node', package: 'node-red', contract: 'classify, embed' }, async ({ url, check }) => {
  const userDir = await mkdtemp(path.join(tmpdir(), 'hailo-clip-node-red-'));
  await writeFile(path.join(userDir, 'flows.json'), JSON.stringify(flow));
  const bridge = {};
  const started = new Promise((resolve) => RED.events.once('flows:started', resolve));
  RED.init({
    userDir,
    flowFile: 'flows.json',
    httpAdminRoot: false,
    httpNodeRoot: false,
    disableEditor: true,
    telemetry: { enabled: false, updateNotification: false },
    logging: { console: { level: 'off' } },
    functionGlobalContext: { bridge },
    editorTheme: { palette: { editable: false, allowInstall: false } },
  });
  try {
    await RED.start();
    await started;
    const ask = (route, msg) =>
      new Promise((resolve) => {
        bridge.got = resolve;
        bridge.send({ method: 'POST', url: url + route, ...msg });
      });
    const best = (msg) => {
      assert.equal(msg.statusCode, 200, JSON.stringify(msg.payload));
      return msg.payload.classifications[0].text;
    };
    const prompts = ['a photo of a cat', 'a photo of a dog'];
    const query = prompts.map((p) => `prompts=${encodeURIComponent(p)}`).join('&');
    const form = (name) => ({
      headers: { 'content-type': 'multipart/form-data' },
      payload: { image: { value: image(name), options: { filename: 'a.jpg' } } },
    });

    await check('object: JSON', async () =>
      assert.equal(best(await ask('/v1/classify', { payload: { image: base64('dog.jpg'), prompts } })), prompts[1]),
    );
    await check('multipart', async () => assert.equal(best(await ask(`/v1/classify?${query}`, form('dog.jpg'))), prompts[1]));
    await check('Buffer, with a content type', async () => {
      assert.equal(
        best(await ask(`/v1/classify?${query}`, { headers: { 'content-type': 'image/jpeg' }, payload: image('cat.jpg') })),
        prompts[0],
      );
    });
    await check('Buffer, without a content type', async () =>
      assert.equal(best(await ask(`/v1/classify?${query}`, { payload: image('cat.jpg') })), prompts[0]),
    );
    await check('embed: object, multipart, Buffer', async () => {
      const want = await imageVector(names[0]);
      same((await ask('/v1/embed/image', { payload: { image: base64(names[0]) } })).payload.embedding, want);
      same(
        (
          await ask('/v1/embed/image', {
            headers: { 'content-type': 'multipart/form-data' },
            payload: { image: { value: image(names[0]), options: { filename: 'a.jpg' } } },
          })
        ).payload.embedding,
        want,
      );
      same(
        (await ask('/v1/embed/image', { headers: { 'content-type': 'image/jpeg' }, payload: image(names[0]) })).payload.embedding,
        want,
      );
      same((await ask('/v1/embed/text', { payload: { text: texts[0] } })).payload.embedding, await textVector(texts[0]));
    });
    await check('OpenAI by hand', async () =>
      same(
        (await ask('/v1/embeddings', { payload: { model: 'clip-vit-b-32', input: texts[0] } })).payload.data[0].embedding,
        await textVector(texts[0]),
      ),
    );
    await check('an error has a status and an object', async () => {
      const msg = await ask('/v1/classify', { payload: { image: 'AAAA', prompts } });
      assert.equal(msg.statusCode, 400);
      assert.equal(typeof msg.payload.error, 'string');
    });
  } finally {
    await RED.stop();
    await rm(userDir, { recursive: true, force: true });
  }
});
