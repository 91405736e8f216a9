// One prompt set that is edited: its labels with prompts and examples, its settings, all of it as JSON.
import { alert, json, aborted } from './api.js';
import { el, field, fill, notice } from './dom.js';
import { dropTarget, fileButton, fromBase64, imageCanvas, isImage, toBase64 } from './files.js';
import { confirm, fields, jsonEditor, tabs } from './form.js';
import { badge, exportSets, untilReady } from './sets.js';

const parts = ['labels', 'templates', 'background', 'fewshot', 'activation', 'temperature', 'min_cosine', 'min_margin'];

// definitionOf is what PUT takes of what GET gives. Examples stay with their id alone, unless full.
export function definitionOf(info, full = false) {
  const d = structuredClone(Object.fromEntries(parts.filter((p) => info[p] !== undefined).map((p) => [p, info[p]])));
  if (!full) {
    for (const owner of [...d.labels, d.background]) {
      owner.examples = owner.examples?.map(({ id }) => ({ id }));
    }
  }
  return d;
}

const empty = () => ({
  labels: [{ name: '', prompts: [] }, { name: '', prompts: [] }], templates: null, background: { auto: true, prompts: [] },
  fewshot: { mode: 'auto', alpha: 'auto' }, activation: 'softmax', temperature: 1, min_cosine: null, min_margin: null,
});

const settings = [
  { at: 'templates', label: 'Templates', kind: 'choice', empty: null, options: [['', 'as written'], ['none', 'none'], ['clip7', 'CLIP’s seven'], ['imagenet80', 'ImageNet’s eighty']],
    hint: 'Sentences that each prompt is put into. A list of your own: see JSON.' },
  { at: 'activation', label: 'Scores', kind: 'choice', options: [['softmax', 'one of them (softmax)'], ['pair', 'each yes or no (pair)'], ['sigmoid', 'sigmoid'], ['none', 'cosines']], hint: 'Sigmoid is for models that were trained with it.' },
  { at: 'min_margin', label: 'Least margin', kind: 'number', empty: null, min: 0, max: 1, step: 0.01, placeholder: 'none', hint: 'By how much the best label must be ahead, 0 to 1; else nothing matches.' },
  { at: 'min_cosine', label: 'Least cosine', kind: 'number', empty: null, min: -1, max: 1, step: 0.01, placeholder: 'none', hint: 'What the best label’s cosine must be; else nothing matches.' },
  { at: 'temperature', label: 'Temperature', kind: 'number', empty: 1, min: 0.001, max: 1000, hint: 'Divides the logits: evaluation finds one.' },
  { at: 'fewshot.mode', label: 'Examples are used', kind: 'choice', options: [['auto', 'as fits best'], ['off', 'not at all'], ['prototype', 'as means'], ['gda', 'as a discriminant']] },
];

// Drafts that have changes, by name, so that another view may be looked at meanwhile.
const drafts = new Map();

addEventListener('beforeunload', (event) => drafts.size && event.preventDefault());

const text = (value) => JSON.stringify(value);

// setForm fills root with the set of a name, '' for a new one.
export function setForm(root, { name, path, signal, refresh }) {
  const thumbs = new Map(); // base64, by id of the example
  const fresh = { base: empty(), etag: '' };
  let draft = drafts.get(name) ?? { ...fresh, definition: structuredClone(fresh.base), name };
  let info = null;
  let mode = 'form';
  let waiting = false; // for the set to be encoded
  let storing; // ends when what is being saved is here

  const status = el('div', { class: 'meta' });
  const warnings = el('div');
  const problem = el('div');
  const body = el('div');
  const save = el('button', { type: 'button', class: 'primary', onclick: () => { storing = store(); } }, 'Save');
  const revert = el('button', { type: 'button', onclick: () => load(true) }, 'Revert');
  const unsaved = el('span', { class: 'soft', role: 'status' });
  const bar = el('div', { class: 'bar' }, unsaved, revert, save);
  const title = name
    ? el('h1', { tabindex: '-1' }, name)
    : field('Name', el('input', {
      value: draft.name, maxlength: 64, pattern: '[A-Za-z0-9][A-Za-z0-9._\\-]{0,63}', autocomplete: 'off', spellcheck: 'false', autofocus: true,
      oninput: (e) => {
        draft.name = e.target.value.trim();
        changed();
      },
    }), 'Letters, digits and . _ -');
  const actions = el('div', { class: 'buttons' });

  const dirty = () => text(draft.definition) !== text(draft.base) || (!name && Boolean(draft.name));
  const readOnly = () => Boolean(info?.read_only);
  const fail = (err) => {
    if (!aborted(err)) {
      fill(problem, alert(err));
      problem.scrollIntoView({ block: 'nearest' });
    }
  };

  function changed() {
    const changes = dirty();
    if (changes) {
      drafts.set(name, draft);
    } else {
      drafts.delete(name);
    }
    unsaved.textContent = changes ? 'Changes are not saved' : '';
    bar.hidden = readOnly() || (!changes && Boolean(name));
    save.disabled = !changes || (!name && !draft.name);
    revert.hidden = !name;
  }

  // told shows what the service says of the set beside its definition.
  function told(now) {
    info = now;
    now.labels.concat(now.background).forEach((o) => o.examples?.forEach((e) => e.thumbnail && thumbs.set(e.id, e.thumbnail)));
    const count = now.labels.reduce((n, l) => n + (l.examples?.length ?? 0), 0);
    const source = { text: 'prompts alone', prototype: 'prompts and means of examples', gda: 'prompts and a discriminant of examples' }[now.score_source];
    fill(status, badge(now),
      now.state === 'encoding' && now.total ? el('progress', { max: now.total, value: now.encoded, 'aria-label': 'Texts that are encoded' }) : null,
      el('span', {}, `${now.labels.length} labels, ${count} ${count === 1 ? 'example' : 'examples'}`),
      source ? el('span', {}, `scores from ${source}`) : null,
      el('span', {}, `model ${now.model}`), el('span', { title: now.etag }, 'version ', el('code', {}, now.etag.slice(0, 8))));
    fill(warnings,
      now.read_only ? notice('info', 'This set is in the configuration of the service, under prompt_sets, and can be changed only there. A copy can be changed here.') : null,
      now.state === 'failed' ? notice('bad', `It could not be encoded: ${now.reason}`) : null,
      now.state === 'encoding' && now.reason ? notice('warn', `It waits: ${now.reason}`) : null,
      (now.warnings ?? []).map((w) => notice('warn', w)));
    actions.children.length || fill(actions,
      el('a', { class: 'button', href: `#sets/${name}/evaluate` }, 'Evaluate…'),
      el('button', { type: 'button', onclick: () => exportSets([name]).catch(fail) }, 'Export'),
      el('button', { type: 'button', onclick: copy }, 'Copy…'),
      now.read_only ? null : el('button', { type: 'button', class: 'danger', onclick: remove }, 'Delete…'));
    if (now.state === 'encoding' && !waiting) {
      waiting = true;
      untilReady(name, signal, told).catch(fail).finally(() => {
        waiting = false;
      });
    }
    changed();
  }

  // load shows the set as the service has it, or the draft of it that is kept here.
  async function load(discard) {
    try {
      const { data } = await json(`${path(name)}?examples=full`, { signal });
      fill(problem);
      const kept = discard ? null : drafts.get(name);
      const base = definitionOf(data);
      draft = kept ?? { base, etag: data.etag, definition: structuredClone(base), name };
      told(data);
      show();
    } catch (err) {
      fail(err);
    }
  }

  async function store() {
    save.disabled = true;
    const to = name || draft.name;
    try {
      const condition = draft.etag ? { 'If-Match': `"${draft.etag}"` } : { 'If-None-Match': '*' };
      await json(path(to), { method: 'PUT', body: draft.definition, headers: condition, signal });
      drafts.delete(name);
      refresh();
      if (name) {
        await load(true);
      } else {
        location.hash = `#sets/${to}`;
      }
    } catch (err) {
      if (err.status === 412) {
        await conflict(err, to);
      } else {
        fail(err);
      }
      changed();
    }
  }

  // conflict shows what somebody else has made of the set meanwhile, and lets the person choose.
  async function conflict(err, to) {
    let theirs;
    try {
      theirs = (await json(`${path(to)}?examples=full`, { signal })).data;
    } catch (gone) {
      if (gone.status !== 404) {
        return fail(gone);
      }
    }
    const take = (again) => {
      draft.etag = theirs?.etag ?? '';
      draft.base = theirs ? definitionOf(theirs) : empty();
      fill(problem);
      again();
    };
    fill(problem, el('div', { class: 'alert', role: 'alert' },
      el('strong', {}, draft.etag ? 'Somebody else has changed this set' : 'There is a set of this name'),
      el('p', {}, !theirs ? 'It has been deleted since you opened it.'
        : draft.etag ? `Since you opened it, ${differences(draft.base, definitionOf(theirs)).join('; ')}. The service does not know who did it.`
          : `"${to}" exists already. Saving replaces all of it.`),
      el('div', { class: 'buttons' },
        theirs && name ? el('button', { type: 'button', onclick: () => load(true) }, 'Take theirs, drop mine') : null,
        el('button', { type: 'button', class: 'danger', onclick: () => take(store) }, 'Save mine over it'))));
    problem.scrollIntoView({ block: 'nearest' });
    return undefined;
  }

  async function remove() {
    try {
      const { data } = await json('/v1/streams', { signal }).catch((err) => {
        if (err.status === 404) {
          return { data: { streams: [] } };
        }
        throw err;
      });
      const users = data.streams.filter((s) => s.prompt_set === name || s.regions?.some((r) => r.prompt_set === name)).map((s) => s.id);
      const question = el('div', {}, el('p', {}, 'Its prompts, thresholds and examples are gone for good. Export it first if you may want it back.'),
        users.length ? notice('warn', `These streams use it, and will have nothing to compare with: ${users.join(', ')}.`) : null);
      if (!await confirm(`Delete the prompt set ${name}?`, question, 'Delete')) {
        return;
      }
      await json(path(name), { method: 'DELETE', headers: { 'If-Match': `"${draft.etag}"` }, signal });
      drafts.delete(name);
      location.hash = '#sets';
    } catch (err) {
      if (err.status === 412) {
        await conflict(err, name);
      } else {
        fail(err);
      }
    }
  }

  async function copy() {
    try {
      const { data } = await json(`${path(name)}?examples=full`, { signal });
      const base = empty();
      drafts.set('', { base, etag: '', definition: definitionOf(data, true), name: `${name}-copy`.slice(0, 64) });
      location.hash = '#sets/+';
    } catch (err) {
      fail(err);
    }
  }

  // addImages makes files examples of a label: at once where the service has the label, else with Save.
  async function addImages(owner, label, files) {
    const images = files.filter(isImage);
    if (!images.length) {
      return fail(new Error('There is no image among these files'));
    }
    fill(problem);
    const stored = name && (label === 'background' || draft.base.labels.some((l) => l.name === label));
    if (!stored) {
      owner.images = [...(owner.images ?? []), ...await Promise.all(images.map(toBase64))];
      changed();
      return show();
    }
    const failed = [];
    await storing; // else the set is another one meanwhile
    for (const file of images) {
      try {
        const { data } = await json(`${path(name)}/examples?label=${encodeURIComponent(label)}`, {
          method: 'POST', body: file, headers: { 'Content-Type': file.type || 'application/octet-stream', 'If-Match': `"${draft.etag}"` }, signal,
        });
        draft.etag = data.etag;
        known(data);
      } catch (err) {
        if (err.status === 412) {
          await conflict(err, name);
          return undefined;
        }
        if (aborted(err)) {
          return undefined;
        }
        failed.push(err);
        err.message = `${file.name}: ${err.message}`;
      }
    }
    try {
      const { data } = await json(`${path(name)}?examples=full`, { signal });
      if (data.etag === draft.etag) {
        told(data);
      }
    } catch (err) {
      failed.push(err);
    }
    fill(problem, failed.map((err) => alert(err)));
    return show();
  }

  // known has new examples of the service in the draft and its base, beside changes that are not saved.
  function known(data) {
    const now = definitionOf(data);
    const had = (examples, e) => examples?.some((o) => o.id === e.id);
    for (const l of draft.definition.labels) {
      const before = draft.base.labels.find((o) => o.name === l.name)?.examples;
      const added = (now.labels.find((o) => o.name === l.name)?.examples ?? []).filter((e) => !had(before, e));
      if (added.length) {
        l.examples = [...(l.examples ?? []), ...added];
      }
    }
    const added = (now.background.examples ?? []).filter((e) => !had(draft.base.background.examples, e));
    if (added.length) {
      draft.definition.background.examples = [...(draft.definition.background.examples ?? []), ...added];
    }
    draft.base = now;
  }

  // examples is the row of images that a label has, which takes more.
  function examples(owner, label) {
    const strip = el('ul', { class: 'examples', 'aria-label': `Examples of ${label}` });
    const drop = (list, i) => () => {
      list.splice(i, 1);
      changed();
      show();
    };
    const item = (canvas, what, list, i) => el('li', { class: what },
      canvas, readOnly() ? null : el('button', { type: 'button', class: 'remove', 'aria-label': `Remove example ${i + 1} of ${label}`, onclick: drop(list, i) }, '×'));
    const here = owner.examples ?? [];
    const waiting = owner.images ?? [];
    fill(strip,
      here.map((e, i) => item(thumbs.has(e.id) ? imageCanvas(fromBase64(thumbs.get(e.id)), `Example ${i + 1} of ${label}`) : el('span', { class: 'thumb none', title: 'Only its vector is kept' }, 'vector'), '', here, i)),
      waiting.map((b, i) => item(imageCanvas(fromBase64(b), `Example ${i + 1} of ${label}, not saved`), 'waiting', waiting, i)));
    return strip;
  }

  function taking(card, owner, label) {
    if (readOnly()) {
      return null;
    }
    const take = (files) => addImages(owner, label(), files).catch(fail);
    dropTarget(card, (data) => take([...data.files]));
    return el('div', { class: 'take' }, fileButton('Add images…', { accept: 'image/*', multiple: true }, take, `Add example images of ${label() || 'this label'}`),
      el('span', { class: 'soft' }, 'or drop them here'));
  }

  function labelCard(l, i) {
    const card = el('section', { class: 'card label', 'aria-label': `Label ${l.name || i + 1}` });
    const limits = { get enter() { return l.threshold?.enter; }, get exit() { return l.threshold?.exit; } };
    const bound = (at) => el('input', {
      type: 'number', min: -1, max: 1, step: 0.01, value: limits[at] ?? '', placeholder: 'default', inputmode: 'decimal',
      oninput: () => {
        const [enter, exit] = both.map((b) => (b.value === '' ? null : Number(b.value)));
        if (enter === null && exit === null) {
          delete l.threshold;
        } else {
          l.threshold = { enter: enter ?? exit, exit: exit ?? enter };
        }
        changed();
      },
    });
    const both = [bound('enter'), bound('exit')];
    const name = fields(l, [{ at: 'name', label: 'Label', kind: 'text', empty: '', placeholder: 'open' }], changed);
    const prompts = fields(l, [{ at: 'prompts', label: 'Prompts, one a line', kind: 'lines', placeholder: 'Left empty: the name of the label,\nin CLIP’s seven templates' }], changed);
    const negation = draft.definition.activation === 'pair'
      ? fields(l, [{ at: 'negation', label: 'Prompts for “it is not there”', kind: 'lines', placeholder: 'a closed door' }], changed) : [];
    const more = el('div', { class: 'row' },
      field('Holds from', both[0]), field('until below', both[1]),
      fields(l, [
        { at: 'pool', label: 'Prompts count', kind: 'choice', options: [['mean', 'as a mean'], ['max', 'the best']] },
        { at: 'negative', label: 'Negative', kind: 'check' },
      ], changed));
    fill(card,
      el('div', { class: 'label-head' }, name, readOnly() ? null : el('button', {
        type: 'button', class: 'quiet', 'aria-label': `Remove the label ${l.name || i + 1}`, onclick: () => {
          draft.definition.labels.splice(i, 1);
          changed();
          show();
        },
      }, 'Remove')),
      prompts, negation, more, examples(l, l.name || `label ${i + 1}`), taking(card, l, () => l.name));
    return card;
  }

  function backgroundCard() {
    const d = draft.definition;
    const b = (d.background ??= { auto: false, prompts: [] });
    const card = el('section', { class: 'card label', 'aria-label': 'Background' });
    fill(card, el('h2', {}, 'Background'),
      el('p', { class: 'soft' }, 'What is seen where none of the labels is. It competes with them, and is never an answer.'),
      fields(b, [
        { at: 'auto', label: 'Fifty everyday scenes that are built in', kind: 'check', empty: false },
        { at: 'prompts', label: 'Prompts, one a line', kind: 'lines', placeholder: 'an empty yard' },
      ], changed),
      examples(b, 'the background'), taking(card, b, () => 'background'));
    return card;
  }

  function form() {
    const d = draft.definition;
    const labels = el('div', { class: 'labels' }, (Array.isArray(d.labels) ? d.labels : []).map(labelCard), backgroundCard());
    const own = Array.isArray(d.templates);
    return el('fieldset', { disabled: readOnly(), class: 'plain' },
      labels,
      readOnly() ? null : el('div', { class: 'buttons' }, el('button', {
        type: 'button', onclick: () => {
          (d.labels ??= []).push({ name: '', prompts: [] });
          changed();
          show();
          body.querySelector('.labels .label:nth-last-child(2) input')?.focus();
        },
      }, 'Add a label')),
      el('section', { class: 'card', 'aria-label': 'Settings' }, el('h2', {}, 'Settings'),
        el('div', { class: 'grid' }, fields(d, settings.filter((f) => !(own && f.at === 'templates')), () => {
          changed();
          if (d.activation !== activation) {
            show(); // with the fields of that activation
          }
        })),
        own ? el('p', { class: 'soft' }, `${d.templates.length} templates of your own: see JSON.`) : null));
  }

  let activation = '';

  function show() {
    activation = draft.definition.activation;
    const at = document.activeElement?.id;
    fill(body, mode === 'form' ? form() : jsonEditor('Definition', () => draft.definition, (read) => {
      draft.definition = read;
      changed();
    }));
    if (at) {
      document.getElementById(at)?.focus();
    }
    changed();
  }

  fill(root,
    el('a', { class: 'back', href: '#sets' }, '‹ All prompt sets'),
    el('div', { class: 'title' }, title, actions),
    status, warnings, problem,
    tabs('How it is edited', [['form', 'Form'], ['json', 'JSON']], (now) => {
      mode = now;
      if (root.contains(body)) {
        show();
      }
    }),
    body, bar);
  if (name) {
    changed();
    load(false);
  } else {
    show();
  }
}

// differences says in words how a definition differs from another.
function differences(from, to) {
  const names = (d) => new Map(d.labels.map((l) => [l.name, l]));
  const [before, after] = [names(from), names(to)];
  const found = [];
  for (const [label, l] of after) {
    const was = before.get(label);
    if (!was) {
      found.push(`the label ${label} is new`);
    } else if (text(was) !== text(l)) {
      found.push(`the label ${label} is another`);
    }
  }
  found.push(...[...before.keys()].filter((label) => !after.has(label)).map((label) => `the label ${label} is gone`));
  found.push(...parts.filter((p) => p !== 'labels' && text(from[p]) !== text(to[p])).map((p) => `${p.replace('_', ' ')} is another`));
  return found.length ? found : ['nothing of it is different'];
}
