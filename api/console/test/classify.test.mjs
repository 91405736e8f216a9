// The view where an image is classified.
import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { eventually, looksRight, program, samples, test } from './harness.mjs';

const cat = path.join(samples, 'cat.jpg');
const phone = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 };

const choose = (page, file) => page.locator('input[type=file]').setInputFiles(file);

const shows = (page, text) => eventually(`the headline ${text}`, async () => (await page.locator('.headline strong').textContent({ timeout: 1000 })) === text
  && !(await page.locator('.headline').getAttribute('class')).includes('stale'));

const alertShows = (page, pattern) => eventually(`an alert like ${pattern}`, async () => pattern.test(await page.locator('[role=alert]').allTextContents().then((all) => all.join('\n'))));

test('weight and first paint', async ({ page, open, url, context }) => {
  const seen = [], sizes = [];
  context.on('response', (response) => {
    const { pathname } = new URL(response.url());
    if (pathname === '/' || pathname.startsWith('/console/')) {
      seen.push(pathname);
      sizes.push(response.finished().then(() => response.request().sizes()).then((size) => size.responseBodySize));
    }
  });
  await open();
  const paint = await eventually('a paint', () => page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime));
  await page.waitForLoadState('networkidle');
  const [first, files] = [sizes.length, () => Promise.all(sizes).then((all) => all.reduce((sum, size) => sum + size, 0))];
  const began = await files();
  for (const name of ['sets', 'streams', 'state']) {
    await page.goto(`${url}/#${name}`);
    await page.locator(`.view-${name} > *`).first().waitFor({ state: 'attached' });
  }
  const weight = await files();
  const list = await (await fetch(url, { headers: { Accept: 'application/json' } })).json();
  assert.equal(list.service, 'hailo-clip');
  assert.ok(seen.includes('/console/main.js') && weight < 200_000, `${weight} bytes`);
  console.log(`      first contentful paint after ${paint.toFixed(0)} ms; ${first} files of ${(began / 1000).toFixed(1)} kB, with all views ${(weight / 1000).toFixed(1)} kB`);
});

test('nothing chosen yet', async ({ page, open, shot }) => {
  await open();
  await page.getByText('Drop an image here').waitFor();
  await eventually('tokens of the prompts', async () => (await page.locator('.tokens [aria-hidden]').first().textContent()) === '7');
  await shot('empty-light');
});

for (const colorScheme of ['light', 'dark']) {
  test(`classify a file, ${colorScheme}`, { colorScheme }, async ({ page, open, shot }) => {
    await open();
    await choose(page, cat);
    await shows(page, 'a photo of a cat');
    assert.match(await page.locator('.rows li.best .share').textContent(), /^\d+\.\d %/);
    assert.match(await page.locator('.caption').textContent(), /cat\.jpg · 640 × 480/);
    const canvas = page.getByRole('img', { name: 'What the model sees of the image' });
    assert.deepEqual(await canvas.evaluate((c) => [c.width, c.height]), [224, 224]);
    assert.ok(await page.locator('.timing i').count() > 1);
    await looksRight(page);
    await shot(`classify-${colorScheme}`);
  });
}

test('a phone of 360 pixels', phone, async ({ page, open, shot }) => {
  await open();
  await choose(page, cat);
  await shows(page, 'a photo of a cat');
  await looksRight(page);
  await shot('classify-phone');
});

test('samples, an image that is pasted, one that is dropped', async ({ page, open }) => {
  await open();
  await page.getByLabel('Sample images').selectOption('pizza.jpg');
  await shows(page, 'a photo of a pizza');
  const hand = (kind, name) => page.evaluate(async ([type, file]) => {
    const blob = await (await fetch(`/console/${file}`)).blob();
    const data = new DataTransfer();
    data.items.add(new File([blob], file, { type: 'image/jpeg' }));
    const target = document.querySelector('.stage');
    target.dispatchEvent(type === 'paste' ? new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true })
      : new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
  }, [kind, name]);
  await hand('paste', 'guitar.jpg');
  await shows(page, 'a photo of a guitar');
  await hand('drop', 'dog.jpg');
  await shows(page, 'a photo of a dog');
  assert.match(await page.locator('.caption').textContent(), /^dog\.jpg/);
});

test('prompts are edited, counted, kept', async ({ page, open }) => {
  await open();
  await choose(page, path.join(samples, 'elephant.jpg'));
  const second = page.getByLabel('Prompt 2', { exact: true });
  await second.fill('a photo of an elephant');
  await shows(page, 'a photo of an elephant');
  await second.fill(`a photo of an elephant ${'and a large tree '.repeat(40)}`);
  await page.getByText('the model reads 77 tokens, and what comes after them is cut off').waitFor();
  await page.locator('.tokens.long', { hasText: '77+' }).waitFor();
  await second.fill('a photo of an elephant');
  await page.getByText('the model reads 77 tokens').waitFor({ state: 'hidden' });
  await shows(page, 'a photo of an elephant');
  await page.getByRole('button', { name: 'Sort by score' }).click();
  assert.equal(await page.getByLabel('Prompt 1', { exact: true }).inputValue(), 'a photo of an elephant');
  await page.getByRole('button', { name: 'Remove prompt 1' }).click();
  await eventually('another best one', async () => (await page.locator('.headline strong').textContent()) !== 'a photo of an elephant');
  await page.getByLabel('Prompt 1', { exact: true }).evaluate((input) => {
    const data = new DataTransfer();
    data.setData('text/plain', 'one\r\ntwo\n\nthree\n');
    input.value = '';
    input.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true }));
  });
  assert.deepEqual(await page.locator('.rows input').evaluateAll((list) => list.slice(0, 3).map((i) => i.value)), ['one', 'two', 'three']);
  await page.reload();
  await eventually('the prompts again', async () => (await page.getByLabel('Prompt 3', { exact: true }).inputValue()) === 'three');
});

test('text is never markup', async ({ page, open }) => {
  await open();
  await page.getByLabel('Prompt 1', { exact: true }).fill('<img src=x onerror=alert(1)><b>cat');
  await choose(page, cat);
  await eventually('the source', async () => (await page.locator('pre').textContent()).includes('<img src=x onerror=alert(1)><b>cat'));
  assert.equal(await page.locator('main img, main b').count(), 0);
});

test('a prompt set', { service: true, colorScheme: 'dark' }, async ({ page, open, url, shot }) => {
  const put = await fetch(`${url}/v1/prompt-sets/pets`, {
    method: 'PUT', headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ labels: [{ name: 'cat', prompts: ['a photo of a cat'] }, { name: 'dog', prompts: ['a photo of a dog'] }], background: { prompts: ['a photo of a pizza'] } }),
  });
  assert.equal(put.status, 201);
  await open('#classify/pets');
  await choose(page, cat);
  await shows(page, 'cat');
  assert.equal(await page.locator('.rows.labels li.best .label').textContent(), 'cat');
  await choose(page, path.join(samples, 'pizza.jpg'));
  await shows(page, 'None of these');
  await looksRight(page);
  await shot('prompt-set');
  assert.match(await page.locator('.headline').textContent(), /none of the labels fits better/);
  assert.match(await page.locator('pre').textContent(), /--form-string prompt_set=pets/);
  await page.getByLabel('Compare with').selectOption('');
  await shows(page, 'a photo of a pizza');
});

test('the camera, with the fake device', async ({ page, open, shot }) => {
  await open();
  await page.getByRole('button', { name: 'Camera' }).click();
  await eventually('a rate', async () => /live · [\d.]+ images\/s/.test(await page.locator('.live').textContent()));
  await eventually('scores', async () => /^\d/.test(await page.locator('.rows .share').nth(0).textContent()));
  const before = await page.locator('.caption').textContent();
  assert.match(before, /^camera · \d+ × \d+$/);
  await shot('camera');
  const sent = () => page.evaluate(() => performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/v1/classify')).length);
  const n = await sent();
  await eventually('more frames', async () => await sent() > n + 3);
  await page.getByRole('button', { name: 'Keep this frame' }).click();
  await eventually('the frame', async () => /^frame\.jpg · 640 × /.test(await page.locator('.caption').textContent()));
  await page.getByRole('button', { name: 'Camera' }).click();
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.getByRole('button', { name: 'Camera' }).waitFor();
  assert.equal(await page.locator('.live').isVisible(), false);
});

test('no camera where the page is not secure', async ({ page, open }) => {
  await page.addInitScript(() => Object.defineProperty(window, 'isSecureContext', { value: false }));
  await open();
  await page.getByRole('button', { name: 'Camera' }).click();
  await alertShows(page, /camera only over https:\/\/ or at http:\/\/localhost/);
});

test('what the service refuses', { service: { config: 'server: {max_body_bytes: 100000}\nclip: {max_pixels: 500000}\n' } }, async ({ page, open, shot, allow, service }) => {
  allow(/status of (400|413|415)/);
  await open();
  await choose(page, cat);
  await shows(page, 'a photo of a cat');
  const folder = await mkdtemp(path.join(tmpdir(), 'console-test-'));
  try {
    const file = async (name, data) => {
      await writeFile(path.join(folder, name), data);
      await choose(page, path.join(folder, name));
    };
    await file('not.jpg', 'this is no image');
    await alertShows(page, /Not an image that can be read.*invalid_image.*request [0-9a-f]{32}/s);
    assert.match(await page.locator('.headline').getAttribute('class'), /stale/);
    await file('x.avif', Buffer.concat([Buffer.from([0, 0, 0, 28]), Buffer.from('ftypavif\0\0\0\0avifmif1miaf')]));
    await alertShows(page, /Not a kind of image that is read.*unsupported_image/s);
    await choose(page, path.join(samples, 'automobile.jpg'));
    await alertShows(page, /Too large.*body_too_large/s);
    await looksRight(page);
    await shot('error');
    await choose(page, path.join(samples, 'strawberry.jpg')); // 800 x 600
    await choose(page, cat);
    await shows(page, 'a photo of a cat');
    assert.equal(await page.locator('.alert').count(), 0);
    await file('large.bmp', bmp(1000, 600).subarray(0, 1000));
    await alertShows(page, /Too large.*image_too_large/s);
    await file('larger.bmp', bmp(5000, 2000)); // 30 MB, of which the service reads no more than it must
    await alertShows(page, /Too large.*body_too_large/s);
    await service.stop();
    allow(/ERR_CONNECTION_REFUSED/);
    await page.getByRole('button', { name: 'Try again' }).click();
    await alertShows(page, /No answer.*does not answer/s);
    await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange'))); // asks at once how the service is
    await eventually('the state', async () => (await page.locator('#health').textContent()) === 'no answer');
  } finally {
    await rm(folder, { recursive: true });
  }
});

// bmp is a black image.
function bmp(width, height) {
  const head = Buffer.alloc(54 + 3 * width * height);
  head.write('BM');
  head.writeUInt32LE(54, 10);
  head.writeUInt32LE(40, 14);
  head.writeInt32LE(width, 18);
  head.writeInt32LE(height, 22);
  head.writeUInt16LE(1, 26);
  head.writeUInt16LE(24, 28);
  return head;
}

// answering has the page get an answer of a status instead of that of the service.
const answering = (page, status, body, headers = {}) => page.route('**/v1/classify', (route) => route.fulfill({
  status, headers: { 'Content-Type': 'application/json', ...headers }, body: JSON.stringify({ request_id: 'abc', ...body }),
}));

test('too busy, not available, something between', async ({ page, open, allow }) => {
  allow(/status of (429|502|503)/);
  await open();
  await answering(page, 429, { error: 'The queue is full, try again later', code: 'queue_full' }, { 'Retry-After': '7' });
  await choose(page, cat);
  await alertShows(page, /Too busy.*The queue is full.*asked again in 7 s.*queue_full.*abc/s);
  await page.unroute('**/v1/classify');
  await answering(page, 503, { error: 'The encoder is not available: it is lost', code: 'unavailable' });
  await page.getByRole('button', { name: 'Try again' }).click();
  await alertShows(page, /Not available.*it is lost/s);
  await page.unroute('**/v1/classify');
  await page.route('**/v1/classify', (route) => route.fulfill({ status: 502, body: '<html>Bad gateway</html>' }));
  await page.getByRole('button', { name: 'Try again' }).click();
  await alertShows(page, /502/);
  await page.unroute('**/v1/classify');
  await page.getByRole('button', { name: 'Try again' }).click();
  await shows(page, 'a photo of a cat');
});

const secret = 'hc_0Zt5wqvJ8mT3cQeXkz1nP7rYb4sLd9GfHu2aWiVoMjE';
const hash = spawnSync(program, ['keys', 'hash'], { input: secret, encoding: 'utf8' }).stdout.trim();

test('a key is asked for, and never shown', { service: { config: `access: {keys: [{name: mine, hash: '${hash}'}]}\n` } }, async ({ page, open, allow, shot }) => {
  allow(/status of 401/);
  await open();
  const dialog = page.getByRole('dialog');
  await dialog.waitFor();
  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'hidden' });
  await choose(page, cat);
  await dialog.waitFor();
  await page.keyboard.press('Escape');
  await alertShows(page, /A key is needed.*ask who runs it.*unauthorized/s);
  await page.getByRole('button', { name: 'Try again' }).click();
  await dialog.waitFor();
  await page.keyboard.type('wrong');
  await page.keyboard.press('Enter');
  await dialog.getByText('This key is not one of the service').waitFor();
  await looksRight(page);
  await shot('key');
  await page.keyboard.type(secret);
  await page.keyboard.press('Enter');
  await shows(page, 'a photo of a cat');
  for (const language of ['curl', 'Python', 'JavaScript']) {
    await page.getByRole('button', { name: language, exact: true }).click();
    const text = await page.locator('pre').textContent();
    assert.ok(text.includes('HAILO_CLIP_KEY') && !text.includes(secret), text);
  }
  assert.ok(!(await page.content()).includes(secret));
  assert.ok(!(await page.evaluate(() => JSON.stringify(localStorage))).includes(secret));
  await page.reload(); // it is still known
  await choose(page, cat);
  await shows(page, 'a photo of a cat');
  assert.equal(await dialog.count(), 0);
});

for (const fit of ['crop', 'squash', 'pad']) {
  test(`what is shown is what the model sees (${fit})`, { service: { config: `clip: {fit: ${fit}}\n` } }, async ({ page, open, url, shot }) => {
    await open();
    for (const [file, label] of [['automobile.jpg', 'an automobile'], ['guitar.jpg', 'a guitar']]) { // a wide one and a high one
      const prompts = [`a photo of ${label}`, 'a photo of a cat'];
      await choose(page, path.join(samples, file));
      await page.getByText(`${file} · `).waitFor();
      await page.getByLabel('Prompt 1', { exact: true }).fill(prompts[0]);
      await page.getByLabel('Prompt 2', { exact: true }).fill(prompts[1]);
      await shows(page, prompts[0]);
      const shown = await page.locator('.rows .near [aria-hidden]').allTextContents();
      const data = await page.getByRole('img', { name: 'What the model sees of the image' }).evaluate((c) => c.toDataURL('image/png'));
      const answer = await (await fetch(`${url}/v1/classify`, {
        method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ image: data, prompts }),
      })).json();
      for (const { text, cosine } of answer.classifications) {
        const other = shown[prompts.indexOf(text)];
        assert.ok(Math.abs(cosine - other) < 0.03, `${file}, ${text}: ${cosine} of what is shown, ${other} of the file`);
      }
    }
    await shot(`fit-${fit}`);
  });
}

test('a transparent image', async ({ page, open }) => {
  await open();
  const png = await page.evaluate(async () => {
    const canvas = new OffscreenCanvas(300, 200);
    canvas.getContext('2d').fillRect(0, 0, 150, 200);
    return [...new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer())];
  });
  await page.locator('input[type=file]').setInputFiles({ name: 'half.png', mimeType: 'image/png', buffer: Buffer.from(png) });
  await page.getByText('the model sees the colours that are stored there').waitFor();
  await choose(page, cat);
  await page.getByText('the model sees the colours that are stored there').waitFor({ state: 'hidden' });
});

test('an image that the browser does not show', async ({ page, open }) => {
  await open();
  await page.locator('input[type=file]').setInputFiles({ name: 'grey.tiff', mimeType: 'image/tiff', buffer: tiff(32) });
  await page.getByText('This browser cannot show it').waitFor();
  await eventually('a result', async () => /%/.test(await page.locator('.headline').textContent()));
});

// tiff is a grey square.
function tiff(side) {
  const tags = [[256, 3, side], [257, 3, side], [258, 3, 8], [259, 3, 1], [262, 3, 1], [273, 4, 8], [277, 3, 1], [278, 3, side], [279, 4, side * side]];
  const at = 8 + side * side, b = Buffer.alloc(at + 2 + 12 * tags.length + 4, 128);
  b.write('II*\0', 0, 'latin1');
  b.writeUInt32LE(at, 4);
  b.writeUInt16LE(tags.length, at);
  tags.forEach(([tag, kind, value], i) => {
    const to = at + 2 + 12 * i;
    b.writeUInt16LE(tag, to);
    b.writeUInt16LE(kind, to + 2);
    b.writeUInt32LE(1, to + 4);
    b.writeUInt32LE(value, to + 8);
  });
  b.writeUInt32LE(0, b.length - 4);
  return b;
}

test('a simulated chip says that its scores mean nothing', { service: { args: ['--backend', 'sim'] } }, async ({ page, open }) => {
  await open();
  await choose(page, cat);
  await alertShows(page, /The chip is simulated.*scores mean nothing/);
  await eventually('a result', async () => /%/.test(await page.locator('.headline').textContent()));
});

const nasty = [
  `it's "quoted" and 'quoted'`, '$HOME $(id) `id` \\n \\', '@cat.jpg', '<cat.jpg', 'a; type=text/html', 'größer, 猫 🐈, e\u0301', '%s %20 & | > # ! * ? {a,b} ~', '-F --next', '=a=b', 'null', '${process.env} #{x} {0}',
];

for (const [file, key] of [['cat.jpg', secret], [`my "cat"; it's $1, 猫 \\.jpg`], ['-F.jpg']]) {
  const service = key && { config: `access: {keys: [{name: mine, hash: '${hash}'}]}\n` };
  test(`copies of the request of ${file} do the same${key ? ', with a key' : ''}`, { service }, async ({ page, open, context, url }) => {
    await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: url });
    const folder = await mkdtemp(path.join(tmpdir(), 'console-test-'));
    try {
      await copyFile(cat, path.join(folder, file));
      await page.addInitScript(([list, key]) => {
        localStorage.setItem('hailo-clip.prompts', JSON.stringify(list));
        sessionStorage.setItem('hailo-clip.key', key ?? '');
      }, [nasty, key]);
      await open();
      const answered = page.waitForResponse('**/v1/classify');
      await choose(page, path.join(folder, file));
      const want = (await (await answered).json()).classifications;
      assert.deepEqual(want.map((c) => c.text).sort(), [...nasty].sort());
      for (const [language, name, ...command] of [['curl', 'copied.sh', 'bash'], ['curl', 'copied.sh', 'sh'], ['Python', 'copied.py', 'python3'], ['JavaScript', 'copied.mjs', 'node']]) {
        await page.getByRole('button', { name: language, exact: true }).click();
        await page.getByRole('button', { name: 'Copy', exact: true }).click();
        await page.getByText('copied', { exact: true }).waitFor();
        const text = await page.evaluate(() => navigator.clipboard.readText());
        assert.equal(text, await page.locator('pre').textContent());
        await writeFile(path.join(folder, name), language === 'Python' ? text.replace('print(answer.json())', 'import json; print(json.dumps(answer.json()))')
          : text.replace('console.log(await answer.json())', 'console.log(JSON.stringify(await answer.json()))'));
        const { stdout } = await promisify(execFile)(command[0], [name], { cwd: folder, env: { ...process.env, HAILO_CLIP_KEY: key } });
        assert.deepEqual(JSON.parse(stdout).classifications, want, `${command[0]}: ${text}`);
      }
    } finally {
      await rm(folder, { recursive: true });
    }
  });
}

test('copied without a clipboard for programs', async ({ page, open, context, url }) => {
  await context.grantPermissions(['clipboard-read'], { origin: url });
  await page.addInitScript(() => Object.defineProperty(window, 'isSecureContext', { value: false }));
  await open();
  await choose(page, cat);
  await shows(page, 'a photo of a cat');
  await page.getByRole('button', { name: 'Copy', exact: true }).click();
  await page.getByText('copied', { exact: true }).waitFor();
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^curl -sS http:/);
});

test('by keyboard alone', async ({ page, open }) => {
  await open();
  const focused = () => page.evaluate(() => {
    const e = document.activeElement;
    return e.id && document.querySelector(`label[for=${e.id}]`)?.textContent || e.getAttribute('aria-label') || e.textContent;
  });
  await page.keyboard.press('Tab');
  assert.equal(await focused(), 'To the content');
  await page.keyboard.press('Enter');
  await eventually('the content', () => page.evaluate(() => document.activeElement.id === 'main'));
  const reached = [];
  for (let i = 0; i < 40 && !reached.includes('a photo of a dog'); i++) {
    await page.keyboard.press('Tab');
    const outlined = await page.evaluate(() => {
      const e = document.activeElement.matches('input[type=file]') ? document.activeElement.nextElementSibling : document.activeElement;
      const s = getComputedStyle(e);
      return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2;
    });
    reached.push(await focused());
    assert.ok(outlined, `${reached.at(-1)} has the focus and does not show it`);
    if (reached.at(-1) === 'Sample images') {
      await page.keyboard.press('c');
      await shows(page, 'a photo of a cat');
    }
    if (reached.at(-1) === 'Prompt 4') {
      await page.keyboard.press('Enter');
      await page.keyboard.type('a photo of a strawberry');
      assert.equal(await focused(), 'Prompt 5');
      await page.keyboard.press('ArrowUp');
      assert.equal(await focused(), 'Prompt 4');
      await page.keyboard.press('ArrowDown');
      await eventually('its score', async () => /%/.test(await page.locator('.rows .share').nth(4).textContent()));
      await page.keyboard.press('Control+a');
      await page.keyboard.press('Backspace');
      await page.keyboard.press('Backspace');
      assert.equal(await page.locator('.rows input').count(), 4);
      await shows(page, 'a photo of a cat');
    }
    if (reached.at(-1) === 'Copy') {
      break;
    }
  }
  for (const name of ['Choose a file', 'Camera', 'Sample images', 'Prompt 1', 'Remove prompt 1', '+ Add a prompt', 'Sort by score', 'curl', 'Python', 'Copy']) {
    assert.ok(reached.includes(name), `${name} is not reached: ${reached.join(', ')}`);
  }
});

test('files are asked for again, and not sent again', async ({ page, open, url }) => {
  await open();
  const { status } = await page.evaluate(async () => {
    const first = await fetch('/console/main.js', { cache: 'no-store' });
    const again = await fetch('/console/main.js', { cache: 'no-store', headers: { 'If-None-Match': first.headers.get('ETag') } });
    return { status: again.status };
  });
  assert.equal(status, 304);
  const head = await fetch(url, { method: 'HEAD' });
  assert.equal(head.headers.get('content-security-policy'), "default-src 'self'; frame-ancestors 'none'");
});

test('a browser that keeps nothing', async ({ page, open }) => {
  await page.addInitScript(() => {
    for (const name of ['localStorage', 'sessionStorage']) {
      Object.defineProperty(window, name, { get() { throw new DOMException('denied', 'SecurityError'); } });
    }
  });
  await open();
  await page.getByLabel('Prompt 1', { exact: true }).fill('a cat');
  await choose(page, cat);
  await shows(page, 'a cat');
});

test('the camera ends when another view is shown', async ({ page, open }) => {
  await page.addInitScript(() => {
    const get = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    window.streams = [];
    navigator.mediaDevices.getUserMedia = async (...args) => {
      const stream = await get(...args);
      window.streams.push(stream);
      await window.hold;
      return stream;
    };
  });
  await open();
  const ended = () => page.evaluate(() => window.streams.every((s) => s.getTracks().every((t) => t.readyState === 'ended')));
  // The page has the views that it has: this one is left by the hand of the frame of the page.
  const leave = () => page.evaluate(async () => (await import('/console/classify.js')).view.hide());
  await page.getByRole('button', { name: 'Camera' }).click();
  await page.locator('.live').waitFor();
  assert.equal(await ended(), false);
  await leave();
  await eventually('the end of the camera', ended);
  await page.evaluate(() => { window.hold = new Promise((resolve) => { window.release = resolve; }); });
  await page.getByRole('button', { name: 'Camera' }).click();
  await eventually('a second stream', () => page.evaluate(() => window.streams.length === 2));
  await leave();
  await page.evaluate(() => window.release());
  await eventually('the end of the camera that was being opened', ended);
  await page.getByRole('button', { name: 'Camera' }).waitFor();
  assert.equal(await page.locator('.live').isVisible(), false);
});
