// The view of the fleet: there only where there is one, and what it says of a large one. What the service would tell is made up here:
// a broker is not needed for that.
import assert from 'node:assert/strict';
import { eventually, looksRight, test } from './harness.mjs';

const node = (name, more) => ({
  node: name, version: '1.4.0', model: 'clip-vit-b-32', rate: 335, queued: 12, in_flight: 8, free: 52, health: 'healthy', alive: true, seen_seconds: 0.1, clock_ms: 0, ...more,
});

const full = {
  enabled: true, node: 'porch', site: 'home',
  broker: { connected: true, url: 'tls://hub:4222', version: '2.15.2', tls: true, max_payload_bytes: 8388608, rtt_ms: 0.43, reconnects: 1 },
  nodes: [node('attic', { alive: false, seen_seconds: 42 }), node('barn', { health: 'degraded', rate: 72 }), node('garage', { twice: true, rate: 0 }), node('porch', { self: true, site: 'home' })],
  queues: [
    { stream: 'CLIP_BULK', pending: 81234, ack_pending: 96, messages: 81330, bytes: 1_720_000_000, limit_bytes: 2147483648, consumers: 1, waiting: 3, redelivered: 0 },
    { stream: 'CLIP_DEAD', pending: 2, ack_pending: 0, messages: 2, bytes: 380, limit_bytes: -1, consumers: 0, waiting: 0, redelivered: 0 },
  ],
  jobs: [{ job: '0123456789abcdef', source: '/photos/<b>2019</b>', state: 'running', found: 1000000, all: true, done: 412345, failed: 7, dead: 2, rate: 702, left_seconds: 837 }],
  dead_letters: [{ key: '000102030405060708090a0b0c0d0e0f.01234567.p1', job: '0123456789abcdef', reason: 'no node could encode <it> in 5 tries', node: 'barn', tries: 5, time: '2026-11-02T03:04:05Z' }],
  cameras: [{ name: 'gate', owner: 'porch' }, { name: 'yard', unreachable_at: ['attic', 'barn'] }],
  spill: { sent: 1204, taken: 88, refused: 1, failed: { busy: 3, timeout: 1 }, in_flight: 0 }, worker: { encoded: 41000, failed: 1, returned: 0, duplicates: 12, dead: 0, in_flight: 16 },
  faults: ['cameras: no answer'],
};

// among has the page believe that its service is in a fleet; answers.fleet is what that tells, and may be replaced.
async function among(page, answers) {
  await page.route('**/console/config.json', async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, json: { ...(await response.json()), fleet: true } });
  });
  await page.route('**/v1/fleet', (route) => route.fulfill({ json: answers.fleet }));
}

const looks = {
  light: { colorScheme: 'light' }, dark: { colorScheme: 'dark' },
  narrow: { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 },
};
for (const [name, options] of Object.entries(looks)) {
  test(`the fleet, ${name}`, options, async ({ page, open, shot }) => {
    await among(page, { fleet: full });
    await open('#fleet');
    const text = () => page.locator('main').textContent();
    await eventually('nodes', async () => /porch \(this one\).*healthy.*335\/s/s.test(await text()));
    for (const wanted of [/attic.*silent.*42 s/s, /garage.*name taken twice/s, /81,234.*96.*81,330.*1\.7 GB of 2\.1 GB/s, /412,345 of 1,000,000.*702\/s.*14 min/s, /none can.*attic, barn/s,
      /1,204 answered by others/, /no node could encode <it> in 5 tries.*5.*barn.*2026/s, /cameras: no answer/, /encrypted/]) {
      assert.match(await text(), wanted);
    }
    assert.match(await text(), /<b>2019<\/b>/);
    assert.equal(await page.locator('nav a[aria-current=page]').textContent(), 'Fleet');
    await looksRight(page);
    await shot(`fleet-${name}`);
  });
}

test('the broker goes, and comes again', {}, async ({ page, open, shot }) => {
  const answers = { fleet: full };
  await among(page, answers);
  await open('#fleet');
  await eventually('it is there', async () => (await page.locator('main table').count()) === 6);
  answers.fleet = { enabled: true, node: 'porch', broker: { connected: false, url: 'tls://hub:4222', tls: false, rtt_ms: 0, reconnects: 1, last_error: 'connection refused' }, faults: ['x'] };
  await eventually('it is gone', async () => /hub:4222 is not reached: connection refused.*as if alone/s.test(await page.locator('main').textContent()));
  await looksRight(page);
  await shot('fleet-alone');
  answers.fleet = full;
  await eventually('it is there again', async () => (await page.locator('main table').count()) === 6);
});

test('no fleet, no view of it', {}, async ({ page, open }) => {
  const told = page.waitForResponse('**/console/config.json');
  await open('#fleet');
  await told;
  assert.equal(await page.locator('nav a', { hasText: 'Fleet' }).count(), 0);
  assert.equal(await page.locator('nav a[aria-current=page]').textContent(), 'Classify');
});
