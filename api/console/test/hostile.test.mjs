// Text that comes from others: what is named, what a service answers, whatever it is. It is shown as text, and breaks no view.
import assert from 'node:assert/strict';
import { copyFile, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { eventually, samples, test } from './harness.mjs';

const markup = '<img src=x onerror="window.ran=1">';
const cat = path.join(samples, 'cat.jpg');
const headers = { 'Content-Type': 'application/json' };

// poisoned is a value with markup in all of its texts.
const poisoned = (value) => (typeof value === 'string' ? value + markup
  : Array.isArray(value) ? value.map(poisoned)
    : value && typeof value === 'object' ? Object.fromEntries(Object.entries(value).map(([name, v]) => [name, poisoned(v)])) : value);

async function harmless(page) {
  assert.equal(await page.evaluate(() => window.ran), undefined);
  assert.equal(await page.locator('main img, #notices img, #health img, footer img, dialog img').count(), 0);
}

async function filled(url) {
  const put = (where, body) => fetch(url + where, { method: 'PUT', headers, body: JSON.stringify(body) }).then((r) => assert.equal(r.status, 201));
  await put('/v1/prompt-sets/pets', { labels: [{ name: 'cat', prompts: [`a cat ${markup}`] }, { name: 'dog', prompts: ['a dog'] }] });
  await put('/v1/streams/gate', { prompt_set: 'pets', events: { enter: 0.01, exit: 0, min_frames: 1, thumbnails: true }, regions: [{ name: 'door', x: 0, y: 0, w: 1, h: 1 }] });
}

test('markup in what others have written is text', { service: true }, async ({ page, open, url }) => {
  await filled(url);
  await open('#sets/pets');
  await eventually('the prompt', async () => (await page.getByLabel('Prompts, one a line').first().inputValue()).includes(markup));
  await harmless(page);
  const folder = await mkdtemp(path.join(tmpdir(), 'console-test-'));
  try {
    const file = path.join(folder, `${markup}.jpg`);
    await copyFile(cat, file);
    await page.goto(`${url}/#classify`);
    await page.locator('input[type=file]').first().setInputFiles(file);
    await eventually('the name of the file', async () => (await page.locator('.caption').textContent()).includes(markup));
    await harmless(page);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('answers with markup in every text', { service: true }, async ({ page, open, url, allow }) => {
  await filled(url);
  allow(/status of 404/);
  const classified = await fetch(`${url}/v1/classify?prompts=a+cat&prompts=a+dog`, { method: 'POST', headers: { 'Content-Type': 'image/jpeg' }, body: await readFile(cat) });
  await page.route(/\/(health$|v1\/)/, async (route) => {
    if ((route.request().headers().accept ?? '').includes('event-stream')) {
      return route.continue();
    }
    if (route.request().url().endsWith('/v1/classify')) { // whose body, a file, playwright does not have
      return route.fulfill({ headers, body: JSON.stringify(poisoned(await classified.json())) });
    }
    const response = await route.fetch();
    const text = await response.text();
    return route.fulfill({ response, body: text.startsWith('{') ? JSON.stringify(poisoned(JSON.parse(text))) : text });
  });
  await open();
  await page.locator('input[type=file]').first().setInputFiles(cat);
  await eventually('an answer', async () => (await page.locator('.headline').textContent()).includes(markup));
  await harmless(page);
  for (const [view, sign] of [['sets/pets', '.meta'], ['sets/pets/evaluate', '.counts'], ['streams', 'tbody'], ['streams/gate', '.meta'], ['state', '.pairs.one']]) {
    await page.goto(`${url}/#${view}`);
    await eventually(`the view ${view}`, async () => (await page.locator(sign).first().innerHTML()).includes('&lt;img'));
    await harmless(page);
  }
});

for (const [what, body] of [['null', 'null'], ['an empty object', '{}'], ['a list', '[]'], ['HTML', `<p>${markup}</p>`]]) {
  test(`answers that are ${what}`, { service: true }, async ({ page, open, url, allow }) => {
    allow(/Error/); // of which the page tells
    const uncaught = [];
    page.on('pageerror', (err) => uncaught.push(err.stack));
    await filled(url);
    await open();
    await page.route('**/v1/**', (route) => route.fulfill({ status: 200, headers, body }));
    await page.locator('input[type=file]').first().setInputFiles(cat);
    await page.locator('.alert').first().waitFor();
    for (const view of ['sets', 'sets/pets', 'streams', 'streams/gate', 'state']) {
      await page.goto(`${url}/#${view}`);
      await page.locator('main .alert').first().waitFor();
      await harmless(page);
    }
    assert.deepEqual(uncaught, []);
  });
}
