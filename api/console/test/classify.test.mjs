// The view where an image is classified.
import assert from 'node:assert/strict';
import path from 'node:path';
import { eventually, samples, test } from './harness.mjs';

const cat = path.join(samples, 'cat.jpg');

const best = (page) => page.locator('.headline strong').textContent();

async function choose(page, file) {
  await page.locator('input[type=file]').setInputFiles(file);
}

test('classify a file', async ({ page, open, shot }) => {
  await open();
  await choose(page, cat);
  await eventually('the best prompt', async () => (await best(page)) === 'a photo of a cat');
  await shot('classify-light');
});

test('classify a file, dark', { colorScheme: 'dark' }, async ({ page, open, shot }) => {
  await open();
  await choose(page, cat);
  await eventually('the best prompt', async () => (await best(page)) === 'a photo of a cat');
  await shot('classify-dark');
});

test('360 pixels wide', { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true }, async ({ page, open, shot }) => {
  await open();
  await choose(page, cat);
  await eventually('the best prompt', async () => (await best(page)) === 'a photo of a cat');
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, 'nothing is wider than the screen');
  await shot('classify-phone');
});
