// The view of the service's state: health, how much is asked, where it waits, batches, the cache, the device, memory. All numbers are differences
// of two answers of /v1/stats, or what is now; what the service does not tell is not shown.
import { json, report } from './api.js';
import { sparkline } from './chart.js';
import { bytes, columns, el, fill, millis, percent, set, tell } from './dom.js';
import { repeat, whileVisible } from './life.js';
import { health, onStatus } from './status.js';

const period = 1000; // milliseconds between two looks
const kept = 120; // of them

const per = (n) => (n >= 100 ? n.toFixed(0) : n.toFixed(1));
const sum = (list) => list.reduce((a, b) => a + b, 0);
const memory = (n) => (n >= 1e9 ? `${(n / 1e9).toFixed(2)} GB` : bytes(n));

function duration(seconds) {
  const [d, h, m] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min ${seconds % 60} s` : `${seconds} s`;
}

// at follows a path such as npu.images; undefined where there is no such thing.
const at = (object, path) => path.split('.').reduce((o, name) => o?.[name], object);

// Looks are the answers that there were, with their times in seconds.
class Looks {
  list = [];

  add(stats) {
    const last = this.list.at(-1)?.stats;
    if (last && stats.process.cpu_seconds < last.process.cpu_seconds) {
      this.list = []; // the service was started anew
    }
    this.list.push({ t: performance.now() / 1000, stats });
    this.list = this.list.slice(-kept - 1);
  }

  get now() { return this.list.at(-1).stats; }

  // rate is the difference of f(stats) a second, over the last few looks; null before there are two.
  rate(f, over = 3) {
    const [a, b] = [this.list[Math.max(0, this.list.length - 1 - over)], this.list.at(-1)];
    return this.list.length > 1 ? (f(b.stats) - f(a.stats)) / (b.t - a.t) : null;
  }

  // change is the difference of f(stats) over the last looks.
  change(f, over) { return f(this.now) - f(this.list[Math.max(0, this.list.length - 1 - over)].stats); }

  // rates are those between each two looks, for a sparkline.
  rates(f) { return this.list.slice(1).map((b, i) => (f(b.stats) - f(this.list[i].stats)) / (b.t - this.list[i].t)); }

  values(f) { return this.list.map(({ stats }) => f(stats)); }
}

// tile is a number with its history.
function tile(title, options) {
  const value = el('strong', {}, '–');
  const note = el('small');
  const canvas = el('canvas', { class: 'spark', 'aria-hidden': 'true' });
  const element = el('section', { class: 'card tile', 'aria-label': title }, el('h3', {}, title), value, note, canvas);
  return {
    element,
    show(text, more, history) {
      tell(value, text);
      tell(note, more);
      sparkline(canvas, history, { room: kept, ...options });
    },
  };
}

// meter is a bar that is full at 1.
function meter(label) {
  const inner = el('i');
  const element = el('div', { class: 'gauge', role: 'meter', 'aria-label': label, 'aria-valuemin': 0, 'aria-valuemax': 1 }, inner);
  return {
    element,
    show(share, kind = '') {
      const value = Math.min(1, Math.max(0, share || 0));
      inner.style.width = `${100 * value}%`;
      inner.className = kind;
      set(element, { 'aria-valuenow': value.toFixed(2) });
    },
  };
}

// list is pairs of a name and what is shown of it; those that are null are left out.
function pairs(kind = '') {
  const element = el('dl', { class: `pairs ${kind}` });
  let names = '';
  return {
    element,
    show(all) {
      const some = all.filter(([, value]) => value !== null && value !== undefined);
      const next = some.map(([name]) => name).join('\n');
      if (next !== names) {
        names = next;
        fill(element, some.map(([name]) => el('div', {}, el('dt', {}, name), el('dd', {}))));
      }
      some.forEach(([, value], i) => {
        const to = element.children[i].lastChild;
        if (typeof value === 'string') {
          tell(to, value);
        } else if (to.firstChild !== value) {
          fill(to, value);
        }
      });
    },
  };
}

const card = (title, ...children) => el('section', { class: 'card', 'aria-label': title }, el('h2', {}, title), ...children);

function healthCard() {
  const state = el('p', { class: 'status' });
  const reason = el('p', { class: 'soft' });
  const facts = pairs('one');
  const element = card('Health', state, reason, facts.element);
  element.classList.add('first');
  return {
    element,
    show(h) {
      fill(state, el('span', { class: `pill ${h?.status ?? 'unreachable'}` }, h?.status ?? 'no answer'));
      tell(reason, h?.reason ?? (h?.status === 'healthy' ? 'It can serve.' : ''));
      if (h?.model) {
        const why = (text, more) => el('span', {}, text, more ? el('small', {}, more) : null);
        facts.show([
          ['model', why(h.model, h.model_reason)], ['backend', why(h.backend, h.backend_reason)], ['vectors', h.runtime_mode === 'simulated' ? 'of a simulated chip' : 'real'],
          ['version', h.version], ['up for', duration(h.uptime_seconds)],
        ]);
      }
    },
  };
}

function stageCard() {
  const rows = new Map();
  const body = el('tbody');
  const element = card('Stages', el('p', { class: 'soft' }, 'What an image goes through: who works, and who waits in front.'),
    el('table', { class: 'wide' }, columns(['Stage', 'a second', 'Busy workers', 'Waiting', 'Failed', 'Too late'], (i) => [1, 4, 5].includes(i)), body));
  return {
    element,
    show(looks) {
      looks.now.stages.forEach((s, i) => {
        if (!rows.has(s.stage)) {
          const cells = { rate: el('td', { class: 'number' }), busy: meter(`${s.stage}: busy workers`), queue: meter(`${s.stage}: waiting`), failed: el('td', { class: 'number' }), expired: el('td', { class: 'number' }) };
          cells.of = el('small');
          cells.waiting = el('small');
          rows.set(s.stage, cells);
          body.append(el('tr', {}, el('th', { scope: 'row' }, s.stage), cells.rate, el('td', {}, el('div', { class: 'with' }, cells.busy.element, cells.of)), el('td', {}, el('div', { class: 'with' }, cells.queue.element, cells.waiting)), cells.failed, cells.expired));
        }
        const c = rows.get(s.stage);
        const rate = looks.rate((st) => st.stages[i].passed);
        tell(c.rate, rate === null ? '–' : per(rate));
        c.busy.show(s.busy / s.workers, s.stuck ? 'bad' : '');
        tell(c.of, `${s.busy} of ${s.workers}${s.stuck ? `, ${s.stuck} stuck` : ''}`);
        c.queue.show(s.queued / s.capacity, s.queued >= s.capacity ? 'warn' : '');
        tell(c.waiting, `${s.queued} of ${s.capacity}`);
        tell(c.failed, String(s.failed));
        tell(c.expired, String(s.expired));
      });
    },
  };
}

// timesCard shows where the time of an image or request went lately: a bar of the stages as on the page of an image, and their means.
function timesCard() {
  const bar = el('div', { class: 'timing', 'aria-hidden': 'true' });
  const legend = el('ul', { class: 'legend' });
  const note = el('p', { class: 'soft' });
  const element = card('Time', note, bar, legend);
  const kind = (name) => (name === 'queue' ? 'queue wait' : name.replace(/-wait$/, ' wait'));
  const parts = new Map();
  return {
    element,
    show(looks) {
      const { stages } = looks.now.server;
      if (!parts.size) {
        for (const { stage } of stages) {
          const part = { bar: el('i', { class: kind(stage) }), time: el('span', { class: 'soft' }) };
          part.item = el('li', {}, el('i', { class: kind(stage) }), stage, ' ', part.time);
          parts.set(stage, part);
        }
        fill(bar, [...parts.values()].map((p) => p.bar));
        fill(legend, [...parts.values()].map((p) => p.item));
      }
      const means = stages.map(({ stage }, i) => {
        const n = looks.change((s) => s.server.stages[i].count, 10);
        return { stage, n, mean: n ? looks.change((s) => s.server.stages[i].seconds, 10) / n : 0 };
      });
      const all = sum(means.map((m) => m.mean));
      tell(note, all ? `${millis(1000 * all)} on average, in the last ten seconds; pale is waiting.` : 'Nothing was asked in the last ten seconds.');
      for (const { stage, mean } of means) {
        const part = parts.get(stage);
        part.bar.style.flexGrow = String(1000 * mean); // in all more than 1, so that they fill it
        part.bar.title = `${stage} ${millis(1000 * mean)}`;
        part.item.hidden = mean < 1e-5;
        tell(part.time, millis(1000 * mean));
      }
    },
  };
}

// runsOf are the runs of the encoder, by how many images were in them. The device counts images, the others runs.
function runsOf(stats) {
  return stats.npu?.image_batches.map((images, n) => (n ? images / n : 0)) ?? stats.cpu?.image_batches ?? stats.stages.find((s) => s.stage === 'encode')?.batches ?? [];
}

function batchCard() {
  const over = el('select', { 'aria-label': 'Of what time' }, el('option', { value: '60' }, 'last minute'), el('option', { value: '' }, 'since the start'));
  const bars = el('div', { class: 'histogram', role: 'img' });
  const note = el('p', { class: 'soft' });
  const element = card('Batch sizes', bars, note);
  element.prepend(el('div', { class: 'head' }, element.firstChild, over));
  return {
    element,
    show(looks) {
      const now = runsOf(looks.now);
      const from = over.value ? runsOf(looks.list[Math.max(0, looks.list.length - 1 - Number(over.value))].stats) : [];
      const counts = now.map((n, i) => Math.round(n - (from[i] ?? 0))).slice(1);
      const last = Math.max(8, counts.findLastIndex((n) => n > 0) + 1);
      while (bars.children.length < last) {
        bars.append(el('div', {}, el('span', { class: 'n' }), el('i'), el('span', {}, String(bars.children.length + 1))));
      }
      while (bars.children.length > last) {
        bars.lastChild.remove();
      }
      const runs = sum(counts);
      const images = sum(counts.map((n, i) => n * (i + 1)));
      const most = Math.max(1, ...counts);
      [...bars.children].forEach((b, i) => {
        tell(b.children[0], counts[i] ? String(counts[i]) : '');
        b.children[1].style.height = `${(100 * (counts[i] ?? 0)) / most}%`;
      });
      const text = runs ? `${runs} runs, ${(images / runs).toFixed(1)} images each on average` : 'No image was encoded.';
      set(bars, { 'aria-label': text });
      tell(note, text);
    },
  };
}

const throttling = ['none', 'slightly slower', 'slower', 'much slower', 'nearly stopped', 'streams are off', 'stopped for its heat'];
const zones = ['green', 'orange', 'red'];

function deviceCard() {
  const facts = pairs();
  const gauge = meter('Rate against the published one');
  const versus = el('p', { class: 'soft' });
  const rate = el('div', {}, el('div', { class: 'with' }, gauge.element, versus));
  const canvas = el('canvas', { class: 'spark', 'aria-hidden': 'true' });
  const element = card('Device', rate, facts.element, el('h3', {}, 'Temperature'), canvas);
  return {
    element,
    show(looks, h) {
      const { npu } = looks.now;
      const busy = looks.change((s) => s.npu.image_busy_seconds, 10);
      const images = looks.change((s) => s.npu.images, 10);
      const published = npu.baseline_images_per_second;
      const fast = busy > 0.2 ? images / busy : null;
      rate.hidden = fast === null && !published;
      gauge.element.hidden = !published || fast === null;
      gauge.show(published ? fast / published : 0);
      tell(versus, fast === null ? `Idle.${published ? ` Published: ${published.toFixed(0)} images/s in runs of eight.` : ''}`
        : `${fast.toFixed(0)} images/s while it works${published ? `, published ${published.toFixed(0)} in runs of eight` : ''}`);
      const share = (v) => (v === null || v === undefined ? null : percent(v));
      const hot = (npu.temperature_celsius ?? []).map((t) => (t === null ? '–' : `${t.toFixed(1)} °C`)).join(', ');
      const worker = npu.worker;
      const zone = npu.temperature_zone;
      facts.show([
        ['state', npu.ready ? 'ready' : 'not ready'], ['temperature', hot ? `${hot} (${zones[zone] ?? zone})` : null], ['throttling', throttling[npu.throttling] ?? String(npu.throttling)],
        ['busy', looks.list.length > 1 ? percent(Math.min(1, looks.rate((s) => s.npu.image_busy_seconds) ?? 0)) : null],
        ['core in use', share(npu.nn_core_utilization)], ['its processor', share(npu.cpu_utilization)],
        ['its memory', npu.memory_bytes ? `${memory(npu.memory_used_bytes)} of ${memory(npu.memory_bytes)}` : null], ['overcurrent', npu.overcurrent ? 'yes' : null],
        ['in flight', String(npu.in_flight)], ['images', String(npu.images)], ['texts', String(npu.texts)], ['failed', String(npu.failed)], ['restarts', String(npu.restarts)],
        ['worker', worker ? `pid ${worker.pid}, ${memory(worker.rss_bytes)}` : null], ['note', h?.runtime_mode === 'simulated' ? 'this chip is simulated' : null],
      ]);
      const first = (s) => s.npu?.temperature_celsius?.[0] ?? null;
      sparkline(canvas, looks.values(first), { room: kept, top: 100, tone: zone ? '--warn' : '--accent' });
    },
  };
}

function requestCard() {
  const body = el('tbody');
  const element = card('Requests', el('table', { class: 'wide' }, columns(['Path', 'a second', 'Answers since the start'], (i) => i === 1), body));
  const rows = new Map();
  return {
    element,
    show(looks) {
      for (const [path, codes] of Object.entries(looks.now.server.requests).sort(([a], [b]) => (a < b ? -1 : 1))) {
        if (!rows.has(path)) {
          const row = { rate: el('td', { class: 'number' }), codes: el('td') };
          rows.set(path, row);
          const after = [...rows.keys()].sort();
          const line = el('tr', {}, el('th', { scope: 'row' }, el('code', {}, path)), row.rate, row.codes);
          body.insertBefore(line, body.children[after.indexOf(path)] ?? null);
        }
        const row = rows.get(path);
        const rate = looks.rate((s) => sum(Object.values(s.server?.requests?.[path] ?? {})));
        tell(row.rate, rate === null ? '–' : per(rate));
        const text = Object.entries(codes).map(([code, n]) => `${code}: ${n}`).join('   ');
        if (row.text !== text) {
          row.text = text;
          fill(row.codes, Object.entries(codes).map(([code, n]) => el('span', { class: `tag ${code >= '500' ? 'bad' : code >= '400' ? 'warn' : ''}` }, `${code} `, String(n))));
        }
      }
    },
  };
}

const passed = (s) => s.stages.at(-1).passed;
const asked = (s) => (s.server?.requests ? sum(Object.values(s.server.requests).flatMap(Object.values)) : 0);
const waiting = (s) => sum(s.stages.map((x) => x.queued));
const hits = (c) => c.list_hits + c.memory_hits + c.disk_hits + c.shared;
const looked = (c) => hits(c) + c.encoded + c.failed;

export function open(root, rest, signal) {
  const looks = new Looks();
  const problem = el('div');
  const tiles = {
    requests: tile('Requests', {}), images: tile('Images', {}), waiting: tile('Waiting', { top: 4, tone: '--warn' }), cache: tile('Prompts known', { top: 1, tone: '--good' }),
    cpu: tile('Processor', { top: 1 }), memory: tile('Memory', {}),
  };
  const cards = { health: healthCard(), stages: stageCard(), batches: batchCard(), device: deviceCard(), requests: requestCard(), times: timesCard() };
  const cache = pairs();
  const streams = pairs();
  const process = pairs();
  const others = { cache: card('Prompt cache', cache.element), streams: card('Streams', streams.element), process: card('Process', process.element) };
  fill(root, el('h1', { class: 'hidden' }, 'State'), problem,
    el('div', { class: 'tiles' }, Object.values(tiles).map((t) => t.element)),
    el('div', { class: 'columns even' },
      el('div', { class: 'stack' }, cards.times.element, cards.stages.element, cards.batches.element, cards.requests.element, others.streams),
      el('div', { class: 'stack' }, cards.health.element, cards.device.element, others.cache, others.process)));
  for (const part of [cards.times.element, cards.device.element, cards.requests.element, others.streams, tiles.requests.element]) {
    part.hidden = true;
  }

  function show() {
    const now = looks.now;
    const some = looks.list.length > 1;
    cards.requests.element.hidden = tiles.requests.element.hidden = !now.server?.requests;
    if (now.server?.requests) {
      const limit = now.server.connections;
      tiles.requests.show(some ? `${per(looks.rate(asked))}/s` : '–', limit ? `${limit.open} of ${limit.limit} connections` : '', looks.rates(asked));
      cards.requests.show(looks);
    }
    cards.times.element.hidden = !now.server?.stages;
    if (now.server?.stages) {
      cards.times.show(looks);
    }
    tiles.images.show(some ? `${per(looks.rate(passed))}/s` : '–', `${passed(now)} since the start`, looks.rates(passed));
    const lost = sum(now.stages.map((s) => s.expired));
    tiles.waiting.show(String(waiting(now)), `of ${sum(now.stages.map((s) => s.capacity))}${lost ? `, ${lost} were too late` : ''}`, looks.values(waiting));
    const c = now.cache;
    const share = (s) => (looked(s.cache) ? hits(s.cache) / looked(s.cache) : null);
    tiles.cache.show(share(now) === null ? '–' : percent(share(now)), `${c.vectors} in memory`, looks.values(share));
    const cpu = (s) => s.process.cpu_seconds + (s.npu?.worker?.cpu_seconds ?? 0);
    tiles.cpu.show(some ? percent(looks.rate(cpu)) : '–', 'of one core', looks.rates(cpu));
    tiles.memory.show(memory(now.process.rss_bytes), `heap ${memory(now.process.heap_bytes)}`, looks.values((s) => s.process.rss_bytes));
    cards.stages.show(looks);
    cards.batches.show(looks);
    cards.device.element.hidden = !now.npu;
    if (now.npu) {
      cards.device.show(looks, health);
    }
    cache.show([
      ['lists known whole', String(c.list_hits)], ['prompts from memory', String(c.memory_hits)], ['from disk', String(c.disk_hits)], ['encoded', String(c.encoded)],
      ['waiting', String(c.pending)], ['refused', String(c.busy)], ['file', at(c, 'disk.state') ? `${c.disk.state}, ${memory(c.disk.bytes)}${c.disk.reason ? `: ${c.disk.reason}` : ''}` : null],
    ]);
    others.streams.hidden = !now.streams;
    if (now.streams) {
      const s = now.streams;
      const frames = looks.rate((st) => st.streams.frames);
      streams.show([
        ['streams', `${s.streams}, ${s.fed} with frames`], ['frames a second', frames === null ? '–' : per(frames)], ['lag', s.frames ? `${s.lag_ms.toFixed(1)} ms, ${s.lag_max_ms.toFixed(0)} ms at most` : null],
        ['dropped', String(s.superseded + s.expired + s.bad)], ['too fast', String(s.degraded)], ['changes', String(s.changes)], ['listeners', String(s.listeners)],
        ['events kept', now.events ? `${now.events.events}, ${memory(now.events.bytes)}` : null],
      ]);
    }
    const p = now.process;
    process.show([
      ['goroutines', String(p.goroutines)], ['collecting garbage', some ? percent(looks.rate((s) => s.process.gc_cpu_seconds)) : null],
      ['allocating', some ? `${memory(looks.rate((s) => s.process.allocated_bytes))}/s` : null], ['connections', at(now, 'server.connections') ? String(now.server.connections.open) : null],
    ]);
  }

  cards.health.show(health);
  signal.addEventListener('abort', onStatus((h) => cards.health.show(h)), { once: true });
  whileVisible(signal, (visible) => repeat(period, visible, async () => {
    try {
      const { data } = await json('/v1/stats', { signal: visible });
      report(problem);
      looks.add(data);
      show();
    } catch (err) {
      report(problem, err);
    }
  }));
}
