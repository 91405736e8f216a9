// One stream: what holds, a live view with regions, the history of scores, events, its definition.
import { alert, json, aborted } from './api.js';
import { el, fill, millis, notice, tell } from './dom.js';
import { confirm } from './form.js';
import { eventList } from './events.js';
import { pause, repeat, whileVisible } from './life.js';
import { live } from './live.js';
import { scores } from './scores.js';
import { definitionOf, feeding, path as pathOf, rates, setNames, states, streamForm } from './streams.js';

// streamPage fills root with the stream of an id.
export function streamPage(root, { id, signal }) {
  const path = pathOf(id);
  const problem = el('div');
  const line = el('div', { class: 'meta' });
  const trouble = el('div');
  const counters = el('dl', { class: 'counters' });
  const [image, history, events] = ['Live view', 'Scores', 'Events'].map((name) => el('section', { class: 'card', 'aria-label': name }));
  const form = el('div');
  const definition = el('details', { class: 'card' }, el('summary', {}, 'Definition'), form);
  const page = { info: null, sets: [] };
  const fail = (err) => {
    if (!aborted(err)) {
      fill(problem, alert(err));
      problem.scrollIntoView({ block: 'nearest' });
    }
  };

  // change stores the definition with what do(definition) makes of it. It resolves to whether that is done.
  async function change(make) {
    try {
      const d = structuredClone(page.definition);
      make(d);
      const { data } = await json(path, { method: 'PUT', body: d, signal });
      page.definition = definitionOf(data);
      fill(problem);
      told(data);
      return true;
    } catch (err) {
      fail(err);
      return false;
    }
  }

  async function remove() {
    if (!await confirm(`Delete the stream ${id}?`, el('p', {}, 'Whoever feeds it is cut off, and its definition is gone. Its events stay.'), 'Delete')) {
      return;
    }
    try {
      await json(path, { method: 'DELETE', signal });
      location.hash = '#streams';
    } catch (err) {
      fail(err);
    }
  }

  const speed = rates();
  let look = '';

  function told(info) {
    page.info = info;
    const per = speed([info]).get(id);
    const [kind, text] = feeding(info);
    const next = JSON.stringify([info.state, kind, text, info.prompt_set, info.prompts?.length, info.source, info.trouble]);
    if (next !== look) {
      look = next;
      fill(line, el('span', { class: `pill ${kind}` }, text), states(info),
        info.prompt_set ? el('span', {}, 'compared with ', el('a', { href: `#sets/${info.prompt_set}` }, info.prompt_set)) : el('span', {}, `${info.prompts?.length ?? 0} prompts`),
        info.source ? el('span', {}, info.source) : null);
      fill(trouble, info.trouble ? notice('bad', `The source: ${info.trouble}`) : null);
    }
    const { stats: s } = info;
    const numbers = [
      ['frames/s', per ? per.frames.toFixed(1) : '–'], ['answered/s', per ? per.answered.toFixed(1) : '–'], ['lag', s.frames ? millis(s.lag_ms) : '–'],
      ['frames', s.frames], ['reused', s.reused], ['superseded', s.superseded], ['expired', s.expired], ['bad', s.bad], ['beyond fps', s.rate], ['changes', s.changes],
    ];
    if (!counters.children.length) {
      fill(counters, numbers.map(([name]) => el('div', {}, el('dt', {}, name), el('dd', {}, ''))));
    }
    numbers.forEach(([, value], i) => tell(counters.children[i].lastChild, String(value)));
    parts.history?.update(info);
  }

  const parts = {};

  function showDefinition() {
    const d = structuredClone(page.definition);
    const saved = el('span', { class: 'soft', role: 'status' });
    const save = el('button', { type: 'button', class: 'primary', disabled: true, onclick: async () => {
      if (await change((now) => {
        Object.keys(now).forEach((name) => delete now[name]);
        Object.assign(now, d);
      })) {
        parts.live.define(page.definition);
        showDefinition();
      }
    } }, 'Save the definition');
    fill(form, streamForm(d, page.sets, () => {
      save.disabled = JSON.stringify(d) === JSON.stringify(page.definition);
      tell(saved, save.disabled ? '' : 'Changes are not saved');
    }), el('div', { class: 'buttons' }, save, saved));
  }

  fill(root, el('a', { class: 'back', href: '#streams' }, '‹ All streams'),
    el('div', { class: 'title' }, el('h1', {}, id), el('div', { class: 'buttons' }, el('button', { type: 'button', class: 'danger', onclick: remove }, 'Delete…'))),
    line, trouble, problem, counters);

  async function start() {
    const [{ data }, sets] = await Promise.all([json(path, { signal }), setNames(signal)]);
    page.sets = sets;
    page.definition = definitionOf(data);
    const on = {
      answer: (a) => parts.history.answer(a),
      event: () => {}, // the list of events hears of them, too
      change,
      fail,
    };
    root.append(el('div', { class: 'stack' }, image, history, events, definition));
    parts.history = scores(history, { signal, change });
    parts.live = live(image, { id, signal, sets, definition: page.definition, on });
    told(data);
    eventList(events, {
      id, path, signal, info: () => page.info,
      frame: (a) => parts.live.fed() || parts.live.answered(a, null),
    });
    showDefinition();
    whileVisible(signal, (visible) => pause(1500, visible).then(() => repeat(1500, visible, refresh)));
  }

  async function refresh(visible) {
    try {
      told((await json(path, { signal: visible })).data);
    } catch (err) {
      fail(err);
    }
  }
  start().catch(fail);
}
