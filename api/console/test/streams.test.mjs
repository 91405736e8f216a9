// The view of streams: defined, fed by the webcam over a WebSocket, regions, thresholds, events.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { eventually, looksRight, out, program, test } from './harness.mjs';
import { listen } from '../www/sse.js';

const send = (url, path, method, body) => fetch(`${url}${path}`, { method, headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
const get = async (url, path) => (await fetch(`${url}${path}`)).json();

// door is a prompt set and a stream of which a label holds with the first frame, whatever that shows.
async function door(url, more = {}) {
  assert.ok((await send(url, '/v1/prompt-sets/door', 'PUT', { labels: [{ name: 'open', prompts: ['a photo of a cat'] }, { name: 'closed', prompts: ['a photo of a pizza'] }] })).ok);
  const events = { enter: 0.5, exit: 0.2, min_frames: 1, thumbnails: true };
  assert.ok((await send(url, '/v1/streams/gate', 'PUT', { prompt_set: 'door', events, ...more })).ok);
}

test('a stream is defined and deleted', { service: true }, async ({ page, open, url }) => {
  await send(url, '/v1/prompt-sets/door', 'PUT', { labels: [{ name: 'open' }, { name: 'closed' }] });
  await open('#streams');
  await page.getByRole('link', { name: 'New stream' }).click();
  await page.getByLabel('Name').fill('gate');
  await page.getByLabel('Frames a second').fill('5');
  await page.getByLabel('A label holds from').fill('0.7');
  await page.getByRole('button', { name: 'Make it' }).click();
  await page.getByRole('heading', { name: 'gate' }).waitFor();
  const made = await get(url, '/v1/streams/gate');
  assert.deepEqual([made.prompt_set, made.fps, made.events.enter, made.events.thumbnails], ['door', 5, 0.7, true]);
  await page.locator('summary', { hasText: 'Definition' }).click();
  await page.getByRole('group', { name: 'How it is edited' }).getByRole('button', { name: 'JSON' }).click();
  await page.getByLabel('Definition', { exact: true }).last().fill(JSON.stringify({ prompts: ['a photo of a cat', 'a photo of a dog'], policy: 'queue' }));
  await page.getByRole('button', { name: 'Save the definition' }).click();
  await eventually('the JSON is stored', async () => (await get(url, '/v1/streams/gate')).policy === 'queue');
  await page.getByRole('button', { name: 'Delete…' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await eventually('it is gone', async () => (await fetch(`${url}/v1/streams/gate`)).status === 404);
});

test('the webcam feeds a stream', { service: true }, async ({ page, open, url, shot }) => {
  await door(url);
  await open('#streams/gate');
  await page.getByRole('button', { name: 'Webcam' }).click();
  await eventually('answers', async () => (await page.locator('.scores li').count()) === 2);
  const answered = () => get(url, '/v1/streams/gate').then((s) => s.stats.answered);
  const before = await answered();
  await eventually('more answers', async () => (await answered()) > before + 5);
  await eventually('it is live', async () => (await page.locator('.meta .pill').textContent()) === 'live');
  const event = page.locator('.events li').first();
  await event.locator('canvas[data-shown]').waitFor();
  await eventually('the image moves', () => page.locator('.frame canvas').evaluate((c) => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v, i) => i % 4 < 3 && v > 0)));
  await looksRight(page);
  await shot('stream-light');

  await page.getByRole('button', { name: 'Stop' }).click();
  await eventually('nobody feeds it', async () => (await get(url, '/v1/streams/gate')).fed === false);
});

test('leaving the view and hiding the page stop the camera', { service: true }, async ({ page, open, url, context }) => {
  await door(url);
  const fed = (is) => eventually(`fed: ${is}`, async () => (await get(url, '/v1/streams/gate')).fed === is);
  await open('#streams/gate');
  await page.getByRole('button', { name: 'Webcam' }).click();
  await fed(true);
  const hide = (hidden) => page.evaluate((h) => {
    Object.defineProperty(document, 'hidden', { value: h, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  }, hidden);
  await hide(true);
  await fed(false);
  await hide(false);
  await fed(true);
  await page.evaluate(() => { location.hash = '#state'; });
  await fed(false);
  const listeners = () => get(url, '/v1/stats').then((s) => s.streams.listeners);
  await eventually('nobody listens', async () => (await listeners()) === 0);
  assert.equal(context.pages().length, 1);
});

test('regions are drawn, moved by keyboard and stored', { service: true }, async ({ page, open, url, shot }) => {
  await door(url);
  await open('#streams/gate');
  const layer = page.locator('.layer');
  await layer.scrollIntoViewIfNeeded();
  const box = await layer.boundingBox();
  const at = (x, y) => [box.x + x * box.width, box.y + y * box.height];
  await page.mouse.move(...at(0.1, 0.1));
  await page.mouse.down();
  await page.mouse.move(...at(0.3, 0.4));
  await page.mouse.move(...at(0.5, 0.6));
  await page.mouse.up();
  await page.locator('.region').waitFor();
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('Shift+ArrowDown');
  await page.getByRole('button', { name: 'Webcam' }).click();
  await page.locator('.answers h3', { hasText: 'region-1' }).waitFor(); // it is tried before it is stored
  await page.getByLabel('region-1: width').fill('50');
  await page.getByLabel('region-1: width').press('Enter');
  await page.getByRole('button', { name: 'Save the regions' }).click();
  await eventually('it is stored', async () => (await get(url, '/v1/streams/gate')).regions?.length === 1);
  const [{ name, x, y, w, h }] = (await get(url, '/v1/streams/gate')).regions;
  assert.equal(name, 'region-1');
  for (const [what, is, want] of [['x', x, 0.11], ['y', y, 0.1], ['w', w, 0.5], ['h', h, 0.51]]) {
    assert.ok(Math.abs(is - want) < 0.02, `${what} is ${is}, not about ${want}`);
  }
  await eventually('answers by region', async () => (await page.locator('.answers .scores li').count()) === 2);
  await looksRight(page);
  await shot('stream-regions');
  const shown = () => page.locator('select[aria-label=Region] option').evaluateAll((list) => list.map((o) => o.value));
  assert.deepEqual(await shown(), ['region-1']);
  await page.getByRole('button', { name: 'Remove the region region-1' }).click();
  await eventually('scores of the whole frame alone', async () => JSON.stringify(await shown()) === '[""]');
});

test('an event becomes an example and is deleted, by keyboard', { service: true }, async ({ page, open, url }) => {
  await door(url);
  await open('#streams/gate');
  await page.getByRole('button', { name: 'Webcam' }).press('Enter');
  const enter = page.locator('.events li.enter').first();
  await enter.locator('canvas[data-shown]').waitFor();
  await page.getByRole('button', { name: 'Stop' }).press('Enter');
  await enter.getByRole('button', { name: /Make an example/ }).press('Enter');
  const choice = enter.getByLabel('Label of door');
  await choice.waitFor();
  await choice.press('c'); // closed
  await enter.getByRole('button', { name: 'Add', exact: true }).press('Enter');
  await enter.getByText('It is an example of').waitFor();
  const set = await get(url, '/v1/prompt-sets/door');
  assert.deepEqual(set.labels.map((l) => l.examples?.length ?? 0), [0, 1]);

  const count = (await get(url, '/v1/streams/gate/events')).events.length;
  await page.getByLabel('Kind').selectOption('exit');
  await eventually('only those that end', async () => (await enter.isVisible()) === false);
  await page.getByLabel('Kind').selectOption('');
  await enter.getByRole('button', { name: /Delete the event/ }).press('Enter');
  await eventually('it is deleted', async () => (await get(url, '/v1/streams/gate/events')).events.length < count);
});

test('a threshold is moved over the history of scores', { service: true }, async ({ page, open, url }) => {
  await door(url);
  await open('#streams/gate');
  await page.getByRole('button', { name: 'Webcam' }).click();
  await page.locator('section[aria-label=Scores] .legend li').nth(1).waitFor();
  const slider = page.getByRole('slider', { name: 'Holds from' });
  assert.equal(await slider.inputValue(), '0.5');
  await slider.press('ArrowRight');
  await page.getByRole('button', { name: 'Save the thresholds' }).click();
  await eventually('it is stored', async () => (await get(url, '/v1/streams/gate')).events.enter === 0.505);
  const made = await get(url, '/v1/streams/gate');
  assert.equal(made.events.thumbnails, true, 'nothing else is changed');
  await eventually('it is fed on', async () => (await get(url, '/v1/streams/gate')).fed);
});

test('the list of streams moves', { service: true }, async ({ page, open, url, shot, context }) => {
  await door(url);
  const feeder = await context.newPage();
  await feeder.goto(`${url}/#streams/gate`);
  await feeder.getByRole('button', { name: 'Webcam' }).click();
  await open('#streams');
  const cell = page.locator('td[data-name="Frames/s"]');
  await eventually('frames a second', async () => Number(await cell.textContent()) > 1);
  await eventually('what holds', async () => /open|closed/.test(await page.locator('td[data-name=Holds]').textContent()));
  await looksRight(page);
  await shot('streams-light');
});

test('streams, dark', { service: true, colorScheme: 'dark' }, async ({ page, open, url, shot }) => {
  await door(url, { regions: [{ name: 'left', x: 0.05, y: 0.1, w: 0.4, h: 0.7 }, { name: 'right', x: 0.5, y: 0.2, w: 0.4, h: 0.7 }] });
  await open('#streams/gate');
  await page.getByRole('button', { name: 'Webcam' }).click();
  await page.locator('.events li canvas[data-shown]').nth(1).waitFor();
  const answers = page.locator('.counters').nth(1);
  await eventually('a rate', async () => /\d/.test(await answers.locator('dd').first().textContent()));
  await looksRight(page);
  await shot('stream-dark');
});

test('streams, 360 pixels wide', { service: true, viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true }, async ({ page, open, url, shot }) => {
  await door(url, { regions: [{ name: 'left', x: 0.05, y: 0.1, w: 0.4, h: 0.7 }] });
  await open('#streams');
  await page.locator('.streams a').waitFor();
  await looksRight(page);
  await shot('streams-phone');
  await page.locator('.streams a').click();
  await page.getByRole('button', { name: 'Webcam' }).click();
  await page.locator('.events li canvas[data-shown]').first().waitFor();
  await looksRight(page);
  await shot('stream-phone');
});

const secret = 'a-secret-of-thirty-two-characters-0123456789';
const hash = spawnSync(program, ['keys', 'hash'], { input: secret, encoding: 'utf8' }).stdout.trim();

test('a stream is fed and heard with a key', { service: { config: `access: {keys: [{name: mine, hash: '${hash}'}]}\n` } }, async ({ page, open, url, allow }) => {
  allow(/401/);
  const authorized = (path, method, body) => fetch(`${url}${path}`, { method, headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${secret}` }, body: JSON.stringify(body) });
  assert.ok((await authorized('/v1/prompt-sets/door', 'PUT', { labels: [{ name: 'open' }, { name: 'closed' }] })).ok);
  assert.ok((await authorized('/v1/streams/gate', 'PUT', { prompt_set: 'door', events: { enter: 0.5, exit: 0.2, min_frames: 1, thumbnails: true } })).ok);
  await open('#streams/gate');
  const dialog = page.getByRole('dialog');
  await dialog.waitFor();
  await page.keyboard.type(secret);
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'Webcam' }).click();
  await page.locator('.events li canvas[data-shown]').first().waitFor(); // a WebSocket, events and a thumbnail, all with the key
});

test('who listens comes again after what was heard last', async () => {
  const end = new AbortController();
  const asked = [], heard = [], told = [];
  const body = (text) => ({ body: new Blob([text]).stream() });
  const answers = [
    () => body(': hailo-clip\n\nid: a1\nevent: enter\ndata: {"label":"open"}\n\nid: a2\nevent: exit\ndata: {"label":"op'), // it ends in the middle
    () => { throw Object.assign(new Error('The service does not answer'), { status: 0 }); },
    () => body('event: missed\ndata: {"missed":null}\n\n:\n\nid: a2\nevent: exit\ndata: {"label":"open"}\n\n'),
    () => body('event: end\ndata: {"error":"There is no such stream","code":"stream_not_found"}\n\n'),
  ];
  await listen((last) => {
    asked.push(last);
    return answers.shift()();
  }, { signal: end.signal, hear: (m) => heard.push([m.id, m.kind]), state: (text) => told.push(text) });
  assert.deepEqual(asked, ['', 'a1', 'a1', 'a2']);
  assert.deepEqual(heard, [['a1', 'enter'], ['', 'missed'], ['a2', 'exit']]);
  assert.equal(told.at(-1), 'There is no such stream');
});

// A video as a phone makes it, on its side; without ffmpeg there is none.
const video = path.join(out, 'door.mp4');
const made = spawnSync('ffmpeg', ['-y', '-loglevel', 'error', '-f', 'lavfi', '-i', 'testsrc2=size=320x240:rate=15:duration=2', '-pix_fmt', 'yuv420p', '-c:v', 'libx264', '-bf', '2', '-g', '15', video]);
const turned = path.join(out, 'door.mov');
if (made.status === 0) {
  const bytes = readFileSync(video);
  const matrix = bytes.indexOf('tkhd') + 44;
  [0, 0x10000, 0, -0x10000, 0].forEach((v, i) => bytes.writeInt32BE(v, matrix + 4 * i));
  writeFileSync(turned, bytes);
}

if (made.status === 0) {
  for (const [file, width, height] of [[video, 320, 240], [turned, 240, 320]]) {
    test(`a video feeds a stream: ${path.extname(file)}`, { service: true }, async ({ page, open, url, allow }) => {
      await door(url);
      await open('#streams/gate');
      await page.locator('section[aria-label="Live view"] input[type=file]').setInputFiles(file);
      const answered = () => get(url, '/v1/streams/gate').then((s) => s.stats.answered);
      await eventually('answers, also after its end', async () => (await answered()) > 25);
      const canvas = page.locator('.frame canvas');
      assert.deepEqual(await canvas.evaluate((c) => [c.width, c.height]), [width, height]);
      const colours = await canvas.evaluate((c) => new Set([...new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)].map((v) => v & 0xe0e0e0)).size);
      assert.ok(colours > 10, `an image of ${colours} colours`);
    });
  }

  test('a file that is no video', { service: true }, async ({ page, open, url }) => {
    await door(url);
    await open('#streams/gate');
    for (const [name, text] of [['a.mp4', 'no video at all, but long enough'], ['b.mp4', '\0\0\0\x10moov\0\0\0\xfftrak']]) {
      await page.locator('section[aria-label="Live view"] input[type=file]').setInputFiles({ name, mimeType: 'video/mp4', buffer: Buffer.from(text, 'latin1') });
      await page.getByRole('alert').filter({ hasText: `${name} cannot be played` }).waitFor();
    }
    assert.equal((await get(url, '/v1/streams/gate')).fed, false);
  });
}
