// The flows of configs/examples, each in a Node-RED of its own without an editor: what a flow would show is told here.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { client, get, here, image, imagePath, root, startService } from './harness.mjs';

// messages runs a flow, in which change has its way with each node, until it has shown n messages, and returns them.
async function messages(flow, n, url, change) {
  const userDir = await mkdtemp(path.join(tmpdir(), 'hailo-clip-node-red-'));
  const nodes = JSON.parse(
    readFileSync(path.join(root, 'configs/examples', flow), 'utf8').replaceAll('http://127.0.0.1:5000', url),
  ).map((node) => {
    const { id, z } = node;
    return node.type === 'debug'
      ? { id, z, type: 'function', func: "node.log('SHOWN ' + JSON.stringify(msg)); return null;", outputs: 0, wires: [] }
      : change(node);
  });
  await writeFile(path.join(userDir, 'flow.json'), JSON.stringify(nodes));
  await writeFile(
    path.join(userDir, 'settings.js'),
    `module.exports = {uiPort: 0, uiHost: '127.0.0.1', httpAdminRoot: false, httpNodeRoot: false,
    telemetry: {enabled: false, updateNotification: false}, logging: {console: {level: 'info'}}};`,
  );
  const red = spawn(
    process.execPath,
    [path.join(here, 'node_modules/node-red/red.js'), '--userDir', userDir, path.join(userDir, 'flow.json')],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const shown = [];
  const said = [];
  try {
    for await (const line of createInterface(red.stdout)) {
      said.push(line);
      const [, json] = line.split('SHOWN ');
      if (json && shown.push(JSON.parse(json)) === n) {
        break;
      }
    }
  } finally {
    red.kill('SIGTERM');
    if (red.exitCode === null) {
      await once(red, 'exit');
    }
    await rm(userDir, { recursive: true, force: true });
  }
  assert.equal(shown.length, n, said.join('\n'));
  assert.ok(!said.some((line) => /missing types|\[(warn|error)\] \[/.test(line)), said.join('\n'));
  return shown;
}

client(
  { name: 'node-red, example flows', package: 'node-red', contract: 'classify, prompt sets, events' },
  async ({ url, check }) => {
    await check('node-red-classify.json: three forms', async () => {
      const all = await messages('node-red-classify.json', 3, url, (node) => ({
        ...node,
        ...(node.type === 'inject' && { once: true }),
        ...(node.type === 'file in' && { filename: imagePath('dog.jpg') }),
      }));
      assert.deepEqual(all.map((m) => m.topic).sort(), ['bytes', 'form', 'object']);
      for (const m of all) {
        assert.equal(m.payload, 'a photo of a dog');
        assert.ok(
          Math.abs(m.labels['a photo of a dog'] + m.labels['a photo of a cat'] - 1) < 1e-6 && m.score === m.labels[m.payload],
          JSON.stringify(m),
        );
      }
    });
    await check('node-red-set.json: a set, and a source', async () => {
      const camera = http.createServer((_, answer) => answer.end(image('cat.jpg'))).listen(0, '127.0.0.1');
      await once(camera, 'listening');
      const service = await startService([], {
        config: `streams:\n  sources:\n    porch: http://127.0.0.1:${camera.address().port}/snapshot.jpg\n`,
      });
      try {
        const [message] = await messages('node-red-set.json', 1, service.url, (node) => ({
          ...node,
          ...(node.repeat === '10' && { repeat: '0.5' }),
        }));
        assert.equal(message.topic, 'porch');
        assert.ok(
          ['open', 'closed', 'unknown'].includes(message.payload) && typeof message.score === 'number',
          JSON.stringify(message),
        );
        assert.equal((await get('/v1/prompt-sets/doors', { url: service.url })).status, 200);
      } finally {
        await service.stop();
        camera.close();
        camera.closeAllConnections();
      }
    });
  },
);
