// The console in Debian's Chromium, driven by playwright-core, against services that are started here with the demo model.
//
//   node run.mjs PROGRAM FOLDER [PART OF A NAME]...
//
// FOLDER has node_modules/playwright-core and gets the screenshots. A file NAME.test.mjs in this folder calls test(); it fails when it
// throws, when the page logs an error or breaks its Content-Security-Policy, or asks any host but the service, unless
// the test says so before with allow.
import { spawn } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export const [program, out, ...wanted] = process.argv.slice(2).map((arg, i) => (i < 2 ? path.resolve(arg) : arg));
const { chromium } = createRequire(path.join(out, '/'))('playwright-core');

export const here = path.dirname(fileURLToPath(import.meta.url));
export const samples = path.join(here, '../../../hailo/demo/samples');
const patience = 20_000; // milliseconds, for what must come

const tests = [];

// test registers a test. Options are those of a browser context of playwright (viewport, colorScheme, ...), and "service", see
// startService: with it the test has a service of its own. f gets {page, context, browser, url, service, faults, open, shot, allow}.
export function test(name, options, f) {
  if (typeof options === 'function') {
    [options, f] = [{}, options];
  }
  tests.push({ name, options, f });
}

// startService starts a service on a free port, with an empty state folder. config is the text of a configuration file, args are
// further arguments. It returns {url, state, stop()}; stop is called again without harm.
export async function startService({ config = '', args = [] } = {}) {
  const state = await mkdtemp(path.join(tmpdir(), 'hailo-clip-console-'));
  const file = path.join(state, 'config.yaml');
  await writeFile(file, config);
  const child = spawn(program, ['serve', '--config', file, '--model', 'demo', '--backend', 'cpu', '--host', '127.0.0.1', '--port', '0', '--state-dir', state, ...args],
    { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = new Promise((resolve) => child.on('exit', resolve)).finally(() => rm(state, { recursive: true, force: true }));
  const stop = () => {
    child.kill('SIGTERM');
    return ended;
  };
  const lines = [];
  const url = await new Promise((resolve, reject) => {
    createInterface(child.stderr).on('line', (line) => {
      lines.push(line);
      const found = /"url":"(http[^"]+)"|\burl=(http\S+)/.exec(line);
      if (found && line.includes('serving')) {
        resolve(found[1] ?? found[2]);
      }
    });
    ended.then((code) => reject(new Error(`the service has ended with ${code}:\n${lines.join('\n')}`)));
  });
  return { url, state, stop };
}

// eventually waits until f, which may be async, returns something true and not throws. It returns that.
export async function eventually(what, f) {
  const end = Date.now() + patience;
  let last;
  for (;;) {
    try {
      const value = await f();
      if (value) {
        return value;
      }
      last = value;
    } catch (err) {
      last = err;
    }
    if (Date.now() > end) {
      throw new Error(`${what}: not after ${patience / 1000} s: ${last}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

// looksRight checks what every view must keep: nothing is wider than the screen, every control has a name, text can be read against what
// is behind it (4.5 to 1, as WCAG has it), nothing is said twice by id.
export async function looksRight(page) {
  const faults = await page.evaluate(() => {
    const channels = (color) => {
      const c = new OffscreenCanvas(1, 1).getContext('2d');
      c.fillStyle = color;
      c.fillRect(0, 0, 1, 1);
      return [...c.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
      const c = [r, g, b][i] / 255;
      return sum + weight * (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    }, 0);
    const behind = (element) => {
      for (let e = element; e; e = e.parentElement) {
        const color = channels(getComputedStyle(e).backgroundColor);
        if (color[3] === 255) {
          return color;
        }
      }
      return [255, 255, 255, 255];
    };
    const found = [], ids = new Set();
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > width) {
      found.push(`the page is ${document.documentElement.scrollWidth} pixels wide, the screen ${width}`);
    }
    for (const e of document.querySelectorAll('body *')) {
      const box = e.getBoundingClientRect(), name = `${e.tagName} ${(e.textContent || e.className).slice(0, 60)}`;
      if (e.id && ids.has(e.id)) {
        found.push(`two have the id ${e.id}`);
      }
      ids.add(e.id);
      if (!e.checkVisibility() || e.closest('.hidden, .skip')) {
        continue;
      }
      if (box.right > width + 0.5 && !e.closest('pre, .wide')) { // .wide scrolls by itself
        found.push(`${name} reaches to ${box.right}`);
      }
      if (e.matches('input, select, textarea, button, a') && !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim() || e.title)) {
        found.push(`${name} has no name`);
      }
      const text = [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim()) || e.matches('input, select');
      if (text && !e.closest('.stale, :disabled, svg, option')) {
        const [a, b] = [light(channels(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) {
          found.push(`${name} has a contrast of ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
        }
      }
    }
    return found;
  });
  if (faults.length) {
    throw new Error(`it does not look right:\n  ${faults.join('\n  ')}`);
  }
}

async function runOne(browser, shared, { name, options: { service: own, ...options }, f }) {
  const service = own ? await startService(own === true ? {} : own) : shared;
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(patience);
  const faults = [], allowed = [];
  const page = await context.newPage();
  const origin = new URL(service.url).origin;
  context.on('request', (request) => {
    const url = new URL(request.url());
    if (url.origin !== origin && url.protocol !== 'blob:') {
      faults.push(`asks ${request.url()}`);
    }
  });
  page.on('console', (message) => {
    if (message.type() === 'error' || /Content.Security.Policy/i.test(message.text())) {
      faults.push(`${message.text()} (${message.location().url})`);
    }
  });
  page.on('pageerror', (err) => faults.push(String(err.stack ?? err)));
  try {
    await f({
      page, service, browser, context, faults,
      url: service.url,
      // open opens the console at a view, such as "#classify".
      open: async (hash = '') => {
        await page.goto(`${service.url}/${hash}`);
        await page.locator('#health.pill').waitFor();
      },
      // shot writes FOLDER/NAME.png, of the whole page.
      shot: (file) => page.screenshot({ path: path.join(out, `${file}.png`), fullPage: true, animations: 'disabled' }),
      // allow says which faults the test is about.
      allow: (pattern) => allowed.push(pattern),
    });
    const left = faults.filter((fault) => !allowed.some((pattern) => pattern.test(fault)));
    if (left.length) {
      throw new Error(`the page has faults:\n  ${left.join('\n  ')}`);
    }
  } catch (err) {
    await page.screenshot({ path: path.join(out, `failed-${name.replaceAll(/\W+/g, '-')}.png`), fullPage: true }).catch(() => {});
    err.message += faults.length ? `\n  the page: ${faults.join('\n  ')}` : '';
    throw err;
  } finally {
    await context.close();
    if (own) {
      await service.stop();
    }
  }
}

// run runs what is registered, and returns how many tests have failed.
export async function run() {
  for (const name of await readdir(out)) { // of a former run
    if (/^failed-.*\.png$/.test(name)) {
      await rm(path.join(out, name));
    }
  }
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream', '--disable-background-networking'],
  });
  const shared = await startService();
  let failed = 0;
  try {
    for (const one of tests) {
      if (wanted.length && !wanted.some((w) => one.name.includes(w))) {
        continue;
      }
      const start = Date.now();
      try {
        await runOne(browser, shared, one);
        console.log(`ok    ${one.name} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
      } catch (err) {
        failed++;
        console.log(`FAIL  ${one.name}\n${err.stack ?? err}`);
      }
    }
  } finally {
    await browser.close();
    await shared.stop();
  }
  return failed;
}
