// The view of streams: the list of them with what holds and how they run, one that is made, one that is looked at.
import { json, report } from './api.js';
import { columns, el, field, fill, millis, tell } from './dom.js';
import { fields, jsonEditor, tabs } from './form.js';
import { repeat, whileVisible } from './life.js';
import { streamPage } from './stream.js';

export const path = (id) => `/v1/streams/${encodeURIComponent(id)}`;

const told = ['id', 'fed', 'degraded', 'stats', 'state', 'trouble', 'trouble_code', 'frame_header'];

// definitionOf is what PUT takes of what GET gives.
export const definitionOf = (info) => structuredClone(Object.fromEntries(Object.entries(info).filter(([name]) => !told.includes(name))));

// rates turns counters of streams into numbers a second, by id: between answers that are a second apart or more.
export function rates() {
  let before = { at: -Infinity, streams: new Map() };
  let result = new Map();
  return (streams) => {
    const at = performance.now();
    if (at - before.at < 1000) {
      return result;
    }
    result = new Map();
    for (const { id, stats } of streams) {
      const last = before.streams.get(id);
      if (last && stats.frames >= last.frames) {
        const per = (...names) => names.reduce((n, name) => n + (1000 * (stats[name] - last[name])) / (at - before.at), 0);
        result.set(id, { frames: per('frames'), answered: per('answered', 'reused') });
      }
    }
    before = { at, streams: new Map(streams.map(({ id, stats }) => [id, stats])) };
    return result;
  };
}

// states are pills of what holds in a stream.
export function states(info) {
  return (info.state ?? []).map((s) => el('span', { class: `tag ${s.state === 'unknown' ? '' : 'on'}` },
    s.region ? `${s.region}: ` : '', s.state === 'unknown' ? 'nothing holds' : s.labels?.length > 1 ? s.labels.join(', ') : s.state));
}

// feeding says in words where frames come from and how that goes.
export function feeding(info) {
  if (info.trouble) {
    return ['unhealthy', `${info.trouble_code?.replace('_', ' ') ?? 'trouble'}`];
  }
  return info.degraded ? ['degraded', 'too fast'] : info.fed ? ['healthy', 'live'] : ['', info.source ? 'connecting' : 'no frames'];
}

export function open(root, rest, signal) {
  if (rest === '+') {
    return newStream(root, signal);
  }
  if (rest) {
    return streamPage(root, { id: rest, signal });
  }
  const problem = el('div');
  const body = el('tbody');
  const none = el('p', { class: 'hint', hidden: true }, 'There is no stream yet. A stream is the frames of a camera, what they are compared with, and what changes in them.');
  const names = ['Stream', 'Frames from', 'Holds', 'Frames/s', 'Answered/s', 'Lag', 'Slowest', 'Dropped', 'Changes'];
  const table = el('table', { class: 'wide streams' }, columns(names, (i) => i > 2), body);
  fill(root, el('div', { class: 'title' }, el('h1', {}, 'Streams'), el('div', { class: 'buttons' }, el('a', { class: 'button primary', href: '#streams/+' }, 'New stream'))),
    problem, none, el('div', { class: 'card flush' }, table));
  const speed = rates();
  const rows = new Map();

  const show = (streams) => {
    const per = speed(streams);
    none.hidden = streams.length > 0;
    table.parentElement.hidden = !streams.length;
    for (const id of rows.keys()) {
      if (!streams.some((s) => s.id === id)) {
        rows.delete(id);
      }
    }
    const list = streams.map((info) => {
      const row = rows.get(info.id) ?? newRow(info.id);
      rows.set(info.id, row);
      row.update(info, per.get(info.id));
      return row.element;
    });
    if (list.length !== body.children.length || list.some((r, i) => body.children[i] !== r)) {
      fill(body, list); // only then, so that the focus stays
    }
  };
  whileVisible(signal, (visible) => repeat(1500, visible, async () => {
    try {
      const { data } = await json('/v1/streams', { signal: visible });
      report(problem);
      show(data.streams);
    } catch (err) {
      report(problem, err);
    }
  }));
}

function newRow(id) {
  const cell = (name) => el('td', { class: 'number', 'data-name': name });
  const [fed, holds] = [el('td', { 'data-name': 'Frames from' }), el('td', { 'data-name': 'Holds' })];
  const [frames, answered, lag, slowest, dropped, changes] = ['Frames/s', 'Answered/s', 'Lag', 'Slowest', 'Dropped', 'Changes'].map(cell);
  let before = '';
  return {
    element: el('tr', {}, el('th', { scope: 'row' }, el('a', { href: `#streams/${id}` }, id)), fed, holds, frames, answered, lag, slowest, dropped, changes),
    update(info, per) {
      const look = JSON.stringify([info.state, info.fed, info.degraded, info.trouble, info.source]);
      if (look !== before) {
        before = look;
        const [kind, text] = feeding(info);
        fill(fed, el('span', { class: `pill ${kind}`, title: info.trouble ?? '' }, text), el('small', {}, info.source ? ` ${info.source}` : ''));
        fill(holds, states(info));
      }
      const { stats } = info;
      const lost = stats.superseded + stats.expired + stats.bad;
      tell(frames, per ? per.frames.toFixed(1) : '–');
      tell(answered, per ? per.answered.toFixed(1) : '–');
      tell(lag, stats.frames ? millis(stats.lag_ms) : '–');
      tell(slowest, stats.lag_max_ms ? millis(stats.lag_max_ms) : '–');
      tell(dropped, `${lost}${stats.frames ? ` (${((100 * lost) / stats.frames).toFixed(0)} %)` : ''}`);
      tell(changes, String(stats.changes));
    },
  };
}

// what is common in a definition; the rest is in its JSON.
const compared = [
  { at: 'prompts', label: 'or prompts, one a line', kind: 'lines', placeholder: 'an open door\na closed door' },
];
const sampling = [
  { at: 'policy', label: 'Too many frames', kind: 'choice', options: [['latest', 'newest only (latest)'], ['queue', 'sender waits (queue)']] },
  { at: 'fps', label: 'Frames a second', kind: 'number', min: 0, max: 1000, step: 0.1, placeholder: 'all' },
  { at: 'source', label: 'Address to pull from', kind: 'text', placeholder: 'frames are pushed', hint: 'http, https, rtsp or rtsps, of a host in fetch.allow.' },
];
const changes = [
  { at: 'events.enter', label: 'A label holds from', kind: 'number', min: -1, max: 1, step: 0.01, placeholder: '0.6' },
  { at: 'events.exit', label: 'until its score is below', kind: 'number', min: -1, max: 1, step: 0.01, placeholder: '0.4' },
  { at: 'events.min_frames', label: 'in how many frames in a row', kind: 'number', min: 1, max: 1000, step: 1, placeholder: '3' },
  { at: 'events.hold_ms', label: 'and for how many ms', kind: 'number', min: 0, step: 1, placeholder: '0' },
  { at: 'events.smoothing', label: 'Smoothing', kind: 'number', min: 0, max: 0.99, step: 0.05, placeholder: '0', hint: 'Weight of what was before, 0 to 0.99.' },
  { at: 'events.thumbnails', label: 'Keep events with thumbnails', kind: 'check' },
];

// streamForm is the form of a definition, which it changes, and calls changed().
export function streamForm(definition, sets, changed) {
  const body = el('div');
  const set = { at: 'prompt_set', label: 'Prompt set', kind: 'choice', options: [['', sets.length ? 'none' : 'there is none yet'], ...sets.map((s) => [s, s])] };
  const form = () => {
    const events = el('div', { class: 'grid' });
    const gate = el('div', { class: 'grid' });
    const inner = () => {
      fill(events, definition.events ? fields(definition, changes, changed) : null);
      fill(gate, definition.gate ? fields(definition, [
        { at: 'gate.distance', label: 'Bits that may differ', kind: 'number', min: 0, max: 32, step: 1, placeholder: '4' },
        { at: 'gate.heartbeat_ms', label: 'Encode one at least every (ms)', kind: 'number', min: 0, step: 1, placeholder: '5000' },
      ], changed) : null);
    };
    const has = (name, label) => el('div', { class: 'field check' }, el('label', {}, el('input', {
      type: 'checkbox', checked: Boolean(definition[name]), onchange: (e) => {
        if (e.target.checked) {
          definition[name] = name === 'events' ? { thumbnails: true } : {};
        } else {
          delete definition[name];
        }
        inner();
        changed();
      },
    }), ' ', label));
    inner();
    return [
      el('div', { class: 'grid' }, fields(definition, [set, ...compared], changed)),
      el('div', { class: 'grid' }, fields(definition, sampling, changed)),
      has('events', 'Tell what changes (events)'), events,
      has('gate', 'Leave out frames that look like the last one'), gate,
    ];
  };
  const bar = tabs('How it is edited', [['form', 'Form'], ['json', 'JSON']], (mode) => {
    fill(body, mode === 'form' ? form() : jsonEditor('Definition', () => definition, (read) => {
      Object.keys(definition).forEach((name) => delete definition[name]);
      Object.assign(definition, read);
      changed();
    }));
  });
  return el('div', {}, bar, body);
}

// setNames are the prompt sets that there are.
export async function setNames(signal) {
  return (await json('/v1/prompt-sets', { signal })).data.prompt_sets.map((s) => s.name);
}

async function newStream(root, signal) {
  const problem = el('div');
  const name = el('input', { maxlength: 64, autocomplete: 'off', spellcheck: 'false', autofocus: true, required: true, placeholder: 'gate' });
  const definition = { policy: 'latest', events: { thumbnails: true } };
  const form = el('div');
  const make = async (e) => {
    e.preventDefault();
    const id = name.value.trim();
    try {
      const { data } = await json('/v1/streams', { signal });
      if (data.streams.some((s) => s.id === id)) {
        throw new Error(`There is a stream "${id}" already`);
      }
      await json(path(id), { method: 'PUT', body: definition, signal });
      location.hash = `#streams/${id}`;
    } catch (err) {
      report(problem, err);
    }
  };
  fill(root, el('a', { class: 'back', href: '#streams' }, '‹ All streams'),
    el('div', { class: 'title' }, el('h1', {}, 'New stream')), problem,
    el('form', { class: 'card', onsubmit: make }, field('Name', name, 'Letters, digits and . _ -'), form,
      el('div', { class: 'buttons' }, el('button', { class: 'primary' }, 'Make it'))));
  name.focus();
  try {
    const sets = await setNames(signal);
    if (sets.length) {
      [definition.prompt_set] = sets;
    }
    fill(form, streamForm(definition, sets, () => {}));
  } catch (err) {
    report(problem, err);
  }
}
