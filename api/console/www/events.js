// The events of a stream as they come, with thumbnails; each can become an example of a label.
import { alert, json, request, aborted } from './api.js';
import { el, fill, notice, set, tell } from './dom.js';
import { imageCanvas } from './files.js';
import { whileVisible } from './life.js';
import { listen } from './sse.js';

const shown = 200; // events in the list; older ones are in GET /v1/streams/ID/events
const words = { enter: 'begins', exit: 'ends', state: 'is now' };

// eventList fills root with the events of a stream. info() is the stream as it is known now; frame(answer) gets answers to frames, where the
// stream tells of them.
export function eventList(root, { id, path, signal, info, frame }) {
  const list = el('ul', { class: 'events' });
  const connection = el('span', { class: 'soft', role: 'status' });
  const problem = el('div');
  const none = el('p', { class: 'hint' }, 'Nothing has changed yet.');
  const kind = el('select', { 'aria-label': 'Kind', onchange: () => sift() }, [['', 'all kinds'], ['enter', 'begins'], ['exit', 'ends'], ['state', 'state']].map(([v, t]) => el('option', { value: v }, t)));
  const label = el('input', { type: 'search', placeholder: 'label or region', 'aria-label': 'Label or region', oninput: () => sift() });
  const seen = new Map(); // elements by id, newest first in list
  let last = '';

  fill(root, el('div', { class: 'head' }, el('h2', {}, 'Events'), el('div', { class: 'buttons' }, kind, label)), problem, list, none, connection);

  const matches = (e) => (!kind.value || e.event === kind.value)
    && [e.label, e.state, e.region, e.previous].some((t) => (t ?? '').toLowerCase().includes(label.value.trim().toLowerCase()));
  const sift = () => {
    let some = false;
    for (const { element, event } of seen.values()) {
      element.hidden = !matches(event);
      some ||= !element.hidden;
    }
    none.hidden = some;
    tell(none, seen.size ? 'No event is like that.' : 'Nothing has changed yet.');
  };

  function add(event, newest) {
    if (seen.has(event.id)) {
      return;
    }
    const element = item(event);
    seen.set(event.id, { element, event });
    element.hidden = !matches(event);
    none.hidden ||= !element.hidden;
    if (newest) {
      list.prepend(element);
    } else {
      list.append(element);
    }
    while (list.children.length > shown) {
      seen.delete(list.lastElementChild.dataset.id);
      list.lastElementChild.remove();
    }
  }

  function item(e) {
    const what = e.event === 'state' ? e.state : e.label;
    const title = `${e.region ? `${e.region}: ` : ''}${what} ${words[e.event]}`;
    const time = new Date(e.time);
    const thumbnail = e.thumbnail && !e.unstored
      ? imageCanvas(request(`/v1/events/${e.id}/thumbnail`, { signal, cache: 'default' }).then((r) => r.blob()), `Thumbnail: ${title}`)
      : el('span', { class: 'thumb none' });
    const note = el('p', { class: 'note', role: 'status' });
    const row = el('li', { 'data-id': e.id, class: e.event }, thumbnail,
      el('div', { class: 'what' },
        el('p', {}, e.region ? el('span', { class: 'tag' }, e.region) : null, el('strong', {}, what), ` ${words[e.event]}`, e.event === 'state' && e.previous ? el('span', { class: 'soft' }, ` · before: ${e.previous}`) : null),
        el('p', { class: 'soft' }, el('time', { datetime: e.time, title: time.toLocaleString() }, time.toLocaleTimeString()), ` · score ${e.score.toFixed(3)}`, e.unstored ? ' · could not be stored' : ''),
        note),
      el('div', { class: 'buttons' },
        e.thumbnail && !e.unstored ? el('button', { type: 'button', onclick: (click) => label_(e, click.currentTarget, note).catch((err) => aborted(err) || fill(note, alert(err))), 'aria-label': `Make an example of: ${title}` }, 'Add as example…') : null,
        el('button', { type: 'button', class: 'quiet', 'aria-label': `Delete the event: ${title}`, onclick: () => remove(e, note) }, 'Delete')));
    return row;
  }

  // label_ asks which label the event shows, and makes it an example of that.
  async function label_(e, button, note) {
    const now = info();
    const name = now?.regions?.find((r) => r.name === e.region)?.prompt_set || now?.prompt_set;
    if (!name) {
      return fill(note, 'The stream has prompts of its own. Examples are kept by prompt sets.');
    }
    const { data } = await json(`/v1/prompt-sets/${encodeURIComponent(name)}`, { signal });
    if (data.read_only) {
      return fill(note, `The prompt set ${name} is in the configuration: it takes no examples.`);
    }
    const choice = el('select', { 'aria-label': `Label of ${name}` },
      [...data.labels.map((l) => [l.name, l.name]), ['background', 'none of them (background)']].map(([v, t]) => el('option', { value: v, selected: v === (e.label ?? e.state) }, t)));
    const add_ = el('button', { type: 'button', class: 'primary', onclick: async () => {
      add_.disabled = true;
      try {
        await json(`/v1/prompt-sets/${encodeURIComponent(name)}/examples`, { method: 'POST', body: { label: choice.value, event: e.id }, signal });
        fill(note, `It is an example of ${choice.value} in `, el('a', { href: `#sets/${name}` }, name), '.');
        button.focus();
      } catch (err) {
        if (!aborted(err)) {
          fill(note, alert(err));
        }
      }
    } }, 'Add');
    fill(note, el('span', { class: 'buttons' }, 'It shows', choice, add_, el('button', { type: 'button', onclick: () => (fill(note), button.focus()) }, 'Cancel')));
    choice.focus();
    return undefined;
  }

  async function remove(e, note) {
    try {
      await json(`/v1/events/${e.id}`, { method: 'DELETE', signal });
    } catch (err) {
      if (err.status !== 404) {
        return aborted(err) || fill(note, alert(err));
      }
    }
    const row = seen.get(e.id)?.element;
    const next = row?.nextElementSibling ?? row?.previousElementSibling;
    row?.remove();
    seen.delete(e.id);
    (next?.querySelector('button') ?? kind).focus();
    sift();
    return undefined;
  }

  function hear({ kind: what, data }) {
    if (what === 'missed') {
      fill(problem, notice('warn', data.missed ? `${data.missed} events were missed: the page was too slow.` : 'Events may have been missed while the page was not listening.'));
    } else if (what === 'frame') {
      frame(data.answer);
    } else {
      add(data, true);
    }
  }

  // before are the events that were, once the page hears of those that come, so that none is between.
  async function before(visible) {
    const { data } = await json(`${path}/events?order=desc&limit=50`, { signal: visible });
    data.events.forEach((e) => add(e, false));
    last ||= data.events[0]?.id ?? '';
    sift();
  }
  const fail = (err) => aborted(err) || fill(problem, alert(err));
  whileVisible(signal, (visible) => listen((since) => request(`${path}/events?frames=true`, {
    signal: visible, headers: { Accept: 'text/event-stream', ...(since ? { 'Last-Event-ID': since } : {}) },
  }), {
    signal: visible, last,
    hear: (m) => {
      last = m.id || last;
      hear(m);
    },
    state: (text) => {
      tell(connection, text);
      if (!text && !last) {
        before(visible).catch(fail);
      }
    },
  }));
  set(root, { 'aria-label': `Events of ${id}` });
}
