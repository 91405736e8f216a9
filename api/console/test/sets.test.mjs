// The view of prompt sets: made, edited, given examples, evaluated, deleted.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { eventually, looksRight, samples, test } from './harness.mjs';

const sample = (name) => path.join(samples, `${name}.jpg`);

async function put(url, name, definition, headers = {}) {
  const response = await fetch(`${url}/v1/prompt-sets/${name}`, { method: 'PUT', headers: { 'Content-Type': 'application/json', ...headers }, body: JSON.stringify(definition) });
  assert.ok(response.ok, await response.text());
}

const get = async (url, name) => (await fetch(`${url}/v1/prompt-sets/${name}`)).json();

const animals = {
  labels: [{ name: 'cat', prompts: ['a photo of a cat'] }, { name: 'dog', prompts: ['a photo of a dog'] }, { name: 'elephant' }],
  background: { auto: true, prompts: [] }, min_margin: 0.1,
};

// drop drags files from outside the browser onto an element.
async function drop(page, element, files) {
  const data = await page.evaluateHandle((list) => {
    const transfer = new DataTransfer();
    for (const { name, base64 } of list) {
      transfer.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], name, { type: 'image/jpeg' }));
    }
    return transfer;
  }, await Promise.all(files.map(async (file) => ({ name: path.basename(file), base64: (await readFile(file)).toString('base64') }))));
  await element.dispatchEvent('dragover', { dataTransfer: data });
  await element.dispatchEvent('drop', { dataTransfer: data });
}

test('a prompt set is made by keyboard', { service: true }, async ({ page, open, url }) => {
  await open('#sets');
  const tab = async (until) => {
    for (let i = 0; i < 80; i++) {
      await page.keyboard.press('Tab');
      if (await page.evaluate(([role, name]) => {
        const e = document.activeElement;
        const label = e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent;
        return e.matches(role) && label.trim() === name;
      }, until)) {
        return;
      }
    }
    assert.fail(`the keyboard does not reach ${until[1]}`);
  };
  await tab(['a', 'New set']);
  await page.keyboard.press('Enter');
  await page.getByLabel('Name').waitFor();
  await tab(['input', 'Name']);
  await page.keyboard.type('animals');
  await tab(['input', 'Label']);
  await page.keyboard.type('cat');
  await tab(['textarea', 'Prompts, one a line']);
  await page.keyboard.type('a photo of a cat\na drawing of a cat');
  await tab(['input', 'Label']);
  await page.keyboard.type('dog');
  await tab(['button', 'Save']);
  await page.keyboard.press('Enter');
  await eventually('it is there', async () => (await page.locator('.title h1').textContent()) === 'animals');
  const made = await get(url, 'animals');
  assert.deepEqual(made.labels.map((l) => [l.name, l.prompts ?? []]), [['cat', ['a photo of a cat', 'a drawing of a cat']], ['dog', []]]);
});

test('an example is dragged onto a label', { service: true }, async ({ page, open, url, shot }) => {
  await put(url, 'animals', animals);
  await open('#sets/animals');
  const card = page.getByRole('region', { name: 'Label cat' });
  await drop(page, card, [sample('cat'), sample('dog')]);
  await eventually('two examples', async () => (await card.locator('canvas[data-shown]').count()) === 2);
  assert.equal((await get(url, 'animals')).labels[0].examples.length, 2);
  await card.getByLabel('Remove example 2 of cat').click();
  await page.getByRole('button', { name: 'Save', exact: true }).click();
  await eventually('one example', async () => (await get(url, 'animals')).labels[0].examples.length === 1);
  await page.getByRole('region', { name: 'Label dog' }).getByLabel('Add example images of dog').last().setInputFiles([sample('dog')]);
  await eventually('an example by the button', async () => (await get(url, 'animals')).labels[1].examples?.length === 1);
  await looksRight(page);
  await shot('sets-light');
});

test('a set that somebody else changes meanwhile', { service: true }, async ({ page, open, url, allow }) => {
  allow(/412/);
  await put(url, 'animals', animals);
  await open('#sets/animals');
  const margin = page.getByLabel('Least margin');
  await margin.fill('0.3');
  await put(url, 'animals', { ...animals, labels: animals.labels.slice(0, 2), min_margin: 0.2 });
  await page.getByRole('button', { name: 'Save', exact: true }).click();
  const told = page.getByRole('alert').filter({ hasText: 'Somebody else' });
  await told.waitFor();
  assert.match(await told.textContent(), /the label elephant is gone/);
  assert.equal((await get(url, 'animals')).min_margin, 0.2, 'nothing is overwritten');
  await told.getByRole('button', { name: 'Save mine over it' }).click();
  await eventually('mine', async () => (await get(url, 'animals')).min_margin === 0.3);
});

test('a set of the configuration', { service: { config: 'prompt_sets:\n  door:\n    labels:\n      - {name: open}\n      - {name: closed}\n' } }, async ({ page, open }) => {
  await open('#sets/door');
  await page.getByText('can be changed only there').waitFor();
  assert.equal(await page.getByRole('button', { name: 'Save', exact: true }).isVisible(), false);
  assert.equal(await page.getByLabel('Least margin').isDisabled(), true);
});

test('a set is evaluated and calibrated', { service: true }, async ({ page, open, url, shot }) => {
  await put(url, 'animals', animals);
  await open('#sets/animals/evaluate');
  for (const label of ['cat', 'dog', 'elephant']) {
    await drop(page, page.locator('.counts tbody tr').filter({ hasText: label }), Array(8).fill(sample(label)));
  }
  await drop(page, page.locator('.counts tbody tr').filter({ hasText: 'none of these' }), [sample('pizza'), sample('guitar')]);
  await page.getByRole('button', { name: 'Evaluate' }).click();
  const matrix = page.locator('table.matrix');
  await matrix.waitFor();
  const rows = await matrix.locator('tbody tr').evaluateAll((list) => list.map((tr) => [...tr.querySelectorAll('td:not(.edge)')].map((td) => Number(td.textContent))));
  assert.deepEqual(rows.map((r) => r.reduce((a, b) => a + b)), [8, 8, 8, 2]);
  await looksRight(page);
  await shot('evaluation-light');
  await page.getByRole('button', { name: 'Apply to the set' }).click();
  await page.getByText('stored in animals').waitFor();
  const thresholds = (await get(url, 'animals')).labels.map((l) => l.threshold?.enter);
  assert.ok(thresholds.some((t) => t > 0), String(thresholds));
});

test('a set is exported, deleted and imported', { service: true }, async ({ page, open, url }) => {
  await put(url, 'animals', animals);
  await open('#sets/animals');
  const [file] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Export', exact: true }).click()]);
  const exported = await file.path();
  await page.getByRole('button', { name: 'Delete…' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await eventually('it is gone', async () => (await fetch(`${url}/v1/prompt-sets/animals`)).status === 404);
  await page.locator('aside input[type=file]').setInputFiles({ name: 'sets.json', mimeType: 'application/json', buffer: await readFile(exported) });
  await eventually('it is back', async () => (await get(url, 'animals')).labels?.length === 3);
});

test('the sets, dark', { service: true, colorScheme: 'dark' }, async ({ page, open, url, shot }) => {
  await put(url, 'animals', animals);
  await open('#sets/animals');
  await page.getByRole('region', { name: 'Label cat' }).waitFor();
  await looksRight(page);
  await shot('sets-dark');
});

test('the sets, 360 pixels wide', { service: true, viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true }, async ({ page, open, url, shot }) => {
  await put(url, 'animals', animals);
  await open('#sets/animals');
  await page.getByRole('region', { name: 'Label cat' }).waitFor();
  await looksRight(page);
  await shot('sets-phone');
});
