// The view of the service's state: it moves under load, and shows what there is.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { eventually, looksRight, samples, test } from './harness.mjs';

const sim = { config: 'sim: {vectors: model}\n', args: ['--backend', 'sim'] };

// load asks for as much as n clients can, until it is stopped.
async function load(url, n) {
  const image = await readFile(path.join(samples, 'cat.jpg'));
  let on = true;
  const client = async () => {
    while (on) {
      const answer = await fetch(`${url}/v1/classify?prompts=a+photo+of+a+cat&prompts=a+photo+of+a+dog`, { method: 'POST', headers: { 'Content-Type': 'image/jpeg' }, body: image });
      await answer.arrayBuffer();
    }
  };
  const clients = Promise.all(Array.from({ length: n }, client));
  return () => {
    on = false;
    return clients;
  };
}

const rate = async (page) => parseFloat(await page.locator('section[aria-label=Images] strong').textContent());

test('the state moves under load', { service: sim }, async ({ page, open, url, shot }) => {
  await open('#state');
  const stop = await load(url, 4);
  try {
    await eventually('images a second', async () => (await rate(page)) > 1);
    await eventually('runs of the device', async () => Number((await page.locator('.histogram [class=n]').allTextContents()).join('')) > 0);
    await eventually('times of stages', async () => /encode.* ms/.test(await page.locator('section[aria-label=Time]').textContent()));
    await eventually('the cache', async () => parseFloat(await page.locator('section[aria-label="Prompts known"] strong').textContent()) > 50);
    assert.match(await page.locator('section[aria-label=Device]').textContent(), /°C.*this chip is simulated/s);
    assert.match(await page.locator('section[aria-label=Health]').textContent(), /healthy.*demo.*sim/s);
    const drawn = () => page.locator('section[aria-label=Images] canvas').evaluate((c) => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v > 0));
    await eventually('a line', drawn);
    await eventually('a history', async () => (await page.evaluate(() => performance.getEntriesByName(`${location.origin}/v1/stats`).length)) > 12);
    await looksRight(page);
    await shot('state-light');
  } finally {
    await stop();
  }
  await eventually('it is quiet again', async () => (await rate(page)) === 0);
});

test('nothing is polled for a view that is left, or a page that is hidden', { service: true }, async ({ page, open }) => {
  let asked = 0;
  page.on('request', (request) => {
    asked += request.url().endsWith('/v1/stats');
  });
  await open('#state');
  await eventually('it asks', () => asked > 1);
  await page.evaluate(() => {
    Object.defineProperty(document, 'hidden', { value: true, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  });
  const silent = async () => {
    const before = asked;
    await page.waitForTimeout(2500); // more than two looks
    return asked === before;
  };
  await eventually('it is silent while hidden', silent);
  await page.evaluate(() => {
    Object.defineProperty(document, 'hidden', { value: false, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  });
  const before = asked;
  await eventually('it asks again', () => asked > before + 1);
  await page.evaluate(() => { location.hash = '#sets'; });
  await eventually('it is silent when left', silent);
});

test('the state, dark', { service: sim, colorScheme: 'dark' }, async ({ page, open, url, shot }) => {
  await open('#state');
  const stop = await load(url, 12);
  try {
    await eventually('images a second', async () => (await rate(page)) > 1);
    await eventually('a history', async () => (await page.evaluate(() => performance.getEntriesByName(`${location.origin}/v1/stats`).length)) > 8);
    await looksRight(page);
    await shot('state-dark');
  } finally {
    await stop();
  }
});

test('the state, 360 pixels wide', { service: sim, viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true }, async ({ page, open, url, shot }) => {
  await open('#state');
  const stop = await load(url, 2);
  try {
    await eventually('images a second', async () => (await rate(page)) > 1);
    await looksRight(page);
    await shot('state-phone');
  } finally {
    await stop();
  }
});
