// That the tests here can fail.
import assert from 'node:assert/strict';
import { eventually, looksRight, test } from './harness.mjs';

test('what is wrong with a page is found', async ({ page, open, faults, allow }) => {
  await open();
  await looksRight(page);
  for (const [spoil, found] of [
    [() => { document.querySelector('footer').style.color = 'var(--line)'; }, /contrast/],
    [() => { document.querySelector('main').style.minWidth = '2000px'; }, /reaches to|pixels wide/],
    [() => { document.querySelector('main').append(document.createElement('button')); }, /no name/],
    [() => { document.querySelector('footer').id = 'main'; }, /two have the id/],
  ]) {
    await page.reload();
    await page.evaluate(spoil);
    await assert.rejects(looksRight(page), found);
  }
  allow(/./);
  assert.deepEqual(faults, []);
  await page.evaluate(() => fetch('http://192.0.2.1/').catch(() => {}));
  await eventually('the request to another host', () => faults.some((f) => /Content Security Policy|asks http/.test(f)));
  faults.length = 0;
  await page.evaluate(() => setTimeout(() => console.error('told')));
  await eventually('what the page logs', () => faults.some((f) => /told/.test(f)));
  faults.length = 0;
  await page.evaluate(() => setTimeout(() => { throw new Error('thrown'); }));
  await eventually('what the page throws', () => faults.some((f) => /thrown/.test(f)));
});
