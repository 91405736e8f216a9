// The view of prompt sets: the list of them, one that is edited, its evaluation.
import { json, report } from './api.js';
import { el, fill } from './dom.js';
import { download, fileButton } from './files.js';
import { confirm } from './form.js';
import { pause, repeat, whileVisible } from './life.js';
import { evaluation } from './evaluation.js';
import { definitionOf, setForm } from './setform.js';

const path = (name) => `/v1/prompt-sets/${encodeURIComponent(name)}`;

// badge says how a set is, where that is not "ready".
export function badge({ state, encoded, total }) {
  const text = { encoding: total ? `encoding ${encoded} of ${total}` : 'encoding', failed: 'failed' }[state];
  return text ? el('span', { class: `pill ${state === 'failed' ? 'unhealthy' : 'degraded'}` }, text) : null;
}

export function open(root, rest, signal) {
  const [name, part] = rest.split('/');
  const list = el('ul', { class: 'items' });
  const problem = el('div');
  const detail = el('section', { class: 'detail' });

  const refresh = async () => {
    try {
      const { data } = await json('/v1/prompt-sets', { signal });
      report(problem);
      fill(list, data.prompt_sets.map((set) => el('li', {}, el('a', {
        href: `#sets/${set.name}`, 'aria-current': set.name === name ? 'page' : null,
      }, el('strong', {}, set.name), el('span', { class: 'soft' },
        `${set.labels} ${set.labels === 1 ? 'label' : 'labels'}${set.read_only ? ' · configuration' : ''}`), badge(set)))),
      data.prompt_sets.length ? null : el('li', { class: 'soft empty' }, 'There is none yet.'));
    } catch (err) {
      report(problem, err);
    }
  };

  const fail = (err) => report(problem, err);
  fill(root, el('div', { class: `split ${name ? 'open' : ''}` },
    el('aside', {},
      el('div', { class: 'buttons' },
        el('a', { class: 'button primary', href: '#sets/+' }, 'New set'),
        fileButton('Import…', { accept: '.json,application/json', multiple: true }, (files) => importSets(files).then(refresh, fail)),
        el('button', { type: 'button', onclick: () => exportSets().catch(fail) }, 'Export all')),
      problem, list),
    detail));

  whileVisible(signal, (visible) => repeat(5000, visible, refresh));
  if (!name) {
    fill(detail, el('p', { class: 'hint' },
      'A prompt set is a list of labels that images are compared with, kept by the service: prompts, example images, thresholds. Choose one, or make a new one.'));
  } else if (name !== '+' && part === 'evaluate') {
    evaluation(detail, { name, path: path(name), signal });
  } else {
    setForm(detail, { name: name === '+' ? '' : name, path, signal, refresh });
  }
}

// exported is a set as a file has it, with its examples.
async function exported(name) {
  return definitionOf((await json(`${path(name)}?examples=full`)).data, true);
}

// exportSets gives the person a file with these sets, or all, as "hailo-clip prompt-sets import" reads it.
export async function exportSets(names) {
  names ??= (await json('/v1/prompt-sets')).data.prompt_sets.map((set) => set.name);
  const sets = {};
  for (const name of names) {
    sets[name] = await exported(name);
  }
  download(names.length === 1 ? `${names[0]}.json` : 'prompt-sets.json', JSON.stringify({ prompt_sets: sets }, null, 2));
}

// importSets stores the sets of files: those of an export, or a definition, which gets the name of its file. What is there is replaced only
// when the person says so.
async function importSets(files) {
  const sets = new Map();
  for (const file of files) {
    let read;
    try {
      read = JSON.parse(await file.text());
    } catch (err) {
      throw new Error(`${file.name} is not JSON: ${err.message}. YAML is read by "hailo-clip prompt-sets import"`);
    }
    const found = read?.prompt_sets ?? (read?.labels ? { [file.name.replace(/\.json$/i, '')]: read } : null);
    if (!found || typeof found !== 'object') {
      throw new Error(`${file.name} has no prompt sets: it must have "prompt_sets", or be a set with "labels"`);
    }
    Object.entries(found).forEach(([name, set]) => sets.set(name, set));
  }
  const there = [];
  for (const [name, body] of sets) {
    await put(name, body, { 'If-None-Match': '*' }).catch((err) => {
      if (err.status !== 412) {
        err.message = `${name}: ${err.message}`;
        throw err;
      }
      there.push(name);
    });
  }
  if (there.length && await confirm('Replace what is there?', el('p', {}, `These sets exist: ${there.join(', ')}.`), 'Replace')) {
    for (const name of there) {
      await put(name, sets.get(name));
    }
  }
}

const put = (name, body, headers) => json(path(name), { method: 'PUT', body, headers });

// untilReady asks for a set until it is not encoded any more, and tells what it hears.
export async function untilReady(name, signal, hear) {
  for (;;) {
    await pause(700, signal);
    if (signal.aborted) {
      return;
    }
    const { data } = await json(path(name), { signal });
    hear(data);
    if (data.state !== 'encoding') {
      return;
    }
  }
}
