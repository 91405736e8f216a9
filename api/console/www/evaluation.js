// How well a prompt set answers labelled images: files by label, the matrix of what was answered, thresholds, calibration.
import { alert, json, aborted } from './api.js';
import { bytes, columns, el, field, fill, notice, percent } from './dom.js';
import { dropTarget, fileButton, isImage } from './files.js';
import { within } from './life.js';

const none = 'background'; // the label of images that show none of the labels
const mostImages = 1000;

// labelled returns [{folder, file}] of what was dropped, with the name of the folder that each file is in, '' for what is in none.
async function labelled(data) {
  const entries = [...data.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) {
    return [...data.files].map((file) => ({ folder: '', file }));
  }
  const found = [];
  const walk = async (entry, folder) => {
    if (entry.isFile) {
      found.push({ folder, file: await new Promise((done, fail) => entry.file(done, fail)) });
      return;
    }
    const reader = entry.createReader();
    for (;;) { // it gives a hundred at a time
      const some = await new Promise((done, fail) => reader.readEntries(done, fail));
      if (!some.length || found.length > mostImages) {
        return;
      }
      for (const one of some) {
        await walk(one, entry.name);
      }
    }
  };
  for (const entry of entries) {
    await walk(entry, '');
  }
  return found;
}

const chosen = (files) => files.map((file) => ({ folder: file.webkitRelativePath.split('/').at(-2) ?? '', file }));

// evaluation fills root for the set of a name.
export async function evaluation(root, { name, path, signal }) {
  const problem = el('div');
  const body = el('div', { class: 'stack' });
  fill(root,
    el('a', { class: 'back', href: `#sets/${name}` }, `‹ ${name}`),
    el('div', { class: 'title' }, el('h1', {}, `Evaluate ${name}`)),
    el('p', { class: 'soft' }, 'Images that you have labelled are answered by the set as it is saved. They are not kept.'),
    problem, body);
  let info;
  try {
    info = (await json(path, { signal })).data;
  } catch (err) {
    if (!aborted(err)) {
      fill(problem, alert(err));
    }
    return;
  }

  const truths = [...info.labels.map((l) => l.name), none];
  const files = new Map(truths.map((label) => [label, []]));
  const strange = new Map(); // files in folders of other names
  const rows = el('tbody');
  const others = el('div');
  const summary = el('p', { class: 'soft', role: 'status' });
  const precision = el('input', { type: 'number', min: 0.5, max: 1, step: 0.01, value: 0.95, inputmode: 'decimal' });
  const results = el('div', { class: 'stack results', 'aria-live': 'polite' });
  const all = () => [...files].flatMap(([label, list]) => list.map((file) => ({ label, file })));

  function add(list, label) {
    for (const { folder, file } of list.filter(({ file: f }) => isImage(f))) {
      const to = label ?? truths.find((t) => t.toLowerCase() === folder.toLowerCase());
      if (to) {
        files.get(to).push(file);
      } else {
        strange.set(folder, [...(strange.get(folder) ?? []), file]);
      }
    }
    show();
  }

  function show() {
    fill(rows, truths.map((label) => {
      const here = files.get(label);
      const what = label === none ? 'none of these' : label;
      const row = el('tr', {}, el('th', { scope: 'row' }, what), el('td', { class: 'number' }, String(here.length)),
        el('td', {}, el('div', { class: 'buttons' },
          fileButton('Add…', { accept: 'image/*', multiple: true }, (some) => add(some.map((file) => ({ file })), label), `Add images of ${what}`),
          here.length ? el('button', { type: 'button', class: 'quiet', 'aria-label': `Remove the images of ${what}`, onclick: () => (files.set(label, []), show()) }, 'Clear') : null)));
      dropTarget(row, async (data) => add(await labelled(data), label));
      return row;
    }));
    fill(others, [...strange].map(([folder, list]) => el('div', { class: 'notice warn buttons' },
      el('span', {}, `${list.length} images ${folder ? `in the folder “${folder}”, which is no label` : 'in no folder'}. They show`),
      el('select', {
        'aria-label': `Label of ${folder || 'the images in no folder'}`, onchange: (e) => {
          strange.delete(folder);
          if (files.has(e.target.value)) {
            files.get(e.target.value).push(...list);
          }
          show();
        },
      }, el('option', { value: '' }, 'choose…'), truths.map((t) => el('option', { value: t }, t === none ? 'none of these' : t)), el('option', { value: '\n' }, 'leave them out')))));
    const list = all();
    const size = list.reduce((sum, { file }) => sum + file.size, 0);
    summary.textContent = list.length
      ? `${list.length} images, ${bytes(size)}${list.length > mostImages ? `: ${mostImages} are allowed` : ''}` : 'No images yet';
    start.disabled = !list.length || list.length > mostImages;
  }

  async function ask(apply, etag) {
    const running = within(signal);
    const form = new FormData();
    all().forEach(({ label, file }) => form.append(label, file, file.name));
    const query = `?precision=${Number(precision.value) || 0.95}${apply ? '&apply=true' : ''}`;
    fill(problem, el('p', { class: 'notice info buttons', role: 'status' }, el('progress', { 'aria-label': 'Images are answered' }), ` ${all().length} images are answered…`,
      el('button', { type: 'button', onclick: running.end }, 'Cancel')));
    start.disabled = true;
    try {
      const { data } = await json(`${path}/evaluate${query}`, {
        method: 'POST', body: form, headers: etag ? { 'If-Match': `"${etag}"` } : {}, signal: running.signal,
      });
      fill(problem);
      fill(results, report(data));
      if (!data.applied) {
        results.append(applying(data));
      } else {
        results.prepend(el('p', { class: 'notice info', role: 'status' }, `Thresholds${data.temperature ? ` and the temperature ${data.temperature.toFixed(3)}` : ''} are stored in ${name}.`));
      }
      results.scrollIntoView({ block: 'start' });
    } catch (err) {
      fill(problem, aborted(err) ? null : alert(err));
    } finally {
      running.end();
      if (!signal.aborted) {
        show();
      }
    }
  }

  function applying(data) {
    if (info.read_only) {
      return notice('info', 'This set is in the configuration: what was found out can be stored only in a copy of it.');
    }
    return el('div', { class: 'bar' }, el('span', { class: 'soft' },
      'Stores the thresholds, and the temperature where there is one, if the set is still the version that was evaluated.'),
    el('button', { type: 'button', class: 'primary', onclick: () => ask(true, data.etag) }, 'Apply to the set'));
  }

  const start = el('button', { type: 'button', class: 'primary', onclick: () => ask(false) }, 'Evaluate');
  const folder = fileButton('Choose a folder…', { webkitdirectory: true, multiple: true }, (some) => add(chosen(some)));
  const zone = el('section', { class: 'card', 'aria-label': 'Images' },
    el('div', { class: 'head' }, el('h2', {}, 'Images'), folder),
    el('p', { class: 'soft' }, `Drop folders here that are named as the labels (${truths.join(', ')}), or images onto a label.`),
    el('table', { class: 'counts' }, el('thead', {}, el('tr', {}, el('th', {}, 'Label'), el('th', { class: 'number' }, 'Images'), el('th', {}, el('span', { class: 'hidden' }, 'Change')))), rows),
    others, el('div', { class: 'row end' }, field('Wanted precision of thresholds', precision), start), summary);
  dropTarget(zone, async (data) => add(await labelled(data)));
  fill(body, zone, results);
  show();
}

const number = (value, text = percent) => (value === null || value === undefined ? '–' : text(value));

// report shows what came of an evaluation.
function report(data) {
  const figure = (value, what, note) => el('div', { class: 'figure' }, el('strong', {}, value), el('span', {}, what), note ? el('small', {}, note) : null);
  return [
    el('section', { class: 'card', 'aria-label': 'Result' },
      el('div', { class: 'figures' },
        figure(percent(data.accuracy), 'accuracy', `${data.images} images`),
        figure(percent(data.ece.before), 'calibration error', 'how far probabilities are from what is right, on average'),
        data.ece.after === null ? null : figure(percent(data.ece.after), 'with the temperature', `${data.temperature.toFixed(3)}`)),
      errorBars(data.ece),
      data.reason ? el('p', { class: 'soft' }, `No temperature: ${data.reason}.`) : null,
      data.errors.length ? el('details', {}, el('summary', {}, `${data.errors.length} images were left out`),
        el('ul', {}, data.errors.map((e) => el('li', {}, `Image ${e.image + 1}, ${e.label}: ${e.error}`)))) : null),
    el('section', { class: 'card', 'aria-label': 'What was answered' }, el('h2', {}, 'What was answered'),
      el('p', { class: 'soft' }, 'Rows: what the images show. Columns: what the set answered. On the diagonal it was right.'), matrix(data)),
    el('section', { class: 'card', 'aria-label': 'Thresholds' }, el('h2', {}, 'Thresholds'),
      el('p', { class: 'soft' }, 'The lowest score with the wanted precision on these images; others will be a little worse.'),
      el('table', { class: 'thresholds' }, columns(['Label', 'Holds from', 'Precision', 'Recall'], Boolean),
        el('tbody', {}, data.labels.map((label) => {
          const t = data.thresholds[label];
          return el('tr', {}, el('th', { scope: 'row' }, label), t
            ? [el('td', { class: 'number' }, bar(t.score), t.score.toFixed(3)), el('td', { class: 'number' }, percent(t.precision)), el('td', { class: 'number' }, percent(t.recall))]
            : el('td', { colspan: 3, class: 'soft' }, 'no score is precise enough'));
        })))),
  ];
}

// share has CSS know a number between 0 and 1.
function share(element, value) {
  element.style.setProperty('--share', Math.min(1, Math.max(0, value)).toFixed(3));
  return element;
}

const bar = (value) => share(el('i', { class: 'meter' }), value);

function errorBars({ before, after }) {
  const line = (what, value) => el('div', { class: 'ece' }, el('span', {}, what), share(el('i', { class: 'meter' }), value), el('span', { class: 'number' }, percent(value)));
  return el('div', { class: 'eces', role: 'img', 'aria-label': `Calibration error ${percent(before)}${after === null ? '' : `, ${percent(after)} with the temperature`}` },
    line('now', before), after === null ? null : line('with the temperature', after));
}

// matrix is the confusion matrix: a cell is the fuller the larger its share of the row is, in one colour where it is right and in another where not.
function matrix({ labels, confusion, recall, precision }) {
  const answers = [...labels, 'no match'];
  const truths = [...labels, 'none of these'];
  const head = el('tr', {}, el('td'), answers.map((a) => el('th', { scope: 'col' }, el('span', {}, a))), el('th', { scope: 'col', class: 'edge' }, el('span', {}, 'recall')));
  const rows = truths.map((truth, i) => {
    const sum = confusion[i].reduce((a, b) => a + b, 0);
    return el('tr', {}, el('th', { scope: 'row' }, truth),
      confusion[i].map((n, j) => share(el('td', {
        class: [i === j ? 'right' : 'wrong', n ? '' : 'zero'].join(' '), title: `${truth}, answered ${answers[j]}: ${n} of ${sum}`,
      }, String(n)), sum ? n / sum : 0)),
      el('td', { class: 'edge' }, number(recall[truth])));
  });
  const foot = el('tr', {}, el('th', { scope: 'row' }, 'precision'), labels.map((l) => el('td', { class: 'edge' }, number(precision[l]))), el('td', { class: 'edge' }), el('td', { class: 'edge' }));
  return el('div', { class: 'wide scroll', tabindex: '0', role: 'region', 'aria-label': 'Confusion matrix' },
    el('table', { class: 'matrix' }, el('thead', {}, head), el('tbody', {}, rows), el('tfoot', {}, foot)));
}
