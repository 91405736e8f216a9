// The view where an image is compared with prompts, or with a prompt set.
import { aborted, alert, ApiError, json, key, request } from './api.js';
import { frame, noCamera, openCamera } from './camera.js';
import { copy, languages } from './copyas.js';
import { bytes, cosine, debounce, el, fill, notice, percent, set, tell, unique } from './dom.js';
import { dropTarget } from './files.js';
import { drawSeen, drawWhole, inWords, transparent } from './image.js';
import { cosineScale, labelRows, promptRows, reasons } from './prompts.js';
import { config, health, onStatus } from './status.js';
import { forGood } from './store.js';
import { timingPanel } from './timing.js';

const path = '/v1/classify';
const promptsKey = 'hailo-clip.prompts';
const first = ['a photo of a cat', 'a photo of a dog', 'a photo of a pizza', 'a photo of a guitar'];

// What is asked, and what was answered last.
const now = { image: null, set: '', answer: null, asked: null, camera: null, error: null };
const parts = {};
let settings = { fit: 'crop', image_size: 224, max_tokens: 77, samples: [] };
let asking = null; // the AbortController of the request under way
let counted = new Map(); // tokens by text
let taken = 0; // images
let opening = null; // names the attempt to open the camera that is wanted

export const view = { name: 'classify', title: 'Classify', start, show, hide };

function start(root) {
  const rows = promptRows(remembered(), () => {
    remember();
    asking?.abort(); // its answer is to other prompts
    stale();
    later();
    countLater();
  });
  const later = debounce(classify, 250), countLater = debounce(count, 120);
  Object.assign(parts, { rows, later, labels: labelRows(), timing: timingPanel() });

  fill(root,
    el('h1', { class: 'hidden' }, 'Classify an image'),
    el('div', { class: 'columns' },
      el('div', { class: 'stack' }, imageCard(), seenCard()),
      el('div', { class: 'stack' }, resultCard(), parts.timing.element, copyCard())));
  parts.timing.element.hidden = true;

  dropTarget(root, (data) => take(data.files[0]), parts.stage);
  addEventListener('paste', (event) => {
    const file = [...event.clipboardData?.files ?? []].find((f) => f.type.startsWith('image/'));
    if (file && root.isConnected) {
      event.preventDefault();
      take(file);
    }
  });
  onStatus((state) => { // it answers again
    if (state && now.error?.status === 0 && root.isConnected && !now.camera) {
      classify();
    }
  });
  config().then((found) => {
    settings = found;
    fill(parts.samples, el('option', { value: '' }, 'Samples'), found.samples.map((name) => el('option', { value: name }, nameOf(name))));
    parts.samples.hidden = found.samples.length === 0;
    tell(parts.seenSize, `${found.image_size} × ${found.image_size}`);
    draw();
  }, fail);
  countLater.now();
}

async function show(name) {
  try {
    const sets = (await json('/v1/prompt-sets')).data.prompt_sets;
    fill(parts.sets, el('option', { value: '' }, 'the prompts below'), sets.map(({ name }) => el('option', { value: name, selected: name === now.set }, `prompt set ${name}`)));
    parts.against.hidden = sets.length === 0;
    const known = (wanted) => sets.some((one) => one.name === wanted);
    if (name && known(name)) { // the address names one
      parts.sets.value = name;
      chooseSet(name);
    } else if (!known(now.set)) {
      chooseSet('');
    }
  } catch { /* the service says so elsewhere, and there is none to choose from */ }
}

function hide() {
  opening = null;
  stopCamera();
}

const remember = () => forGood.set(promptsKey, JSON.stringify(parts.rows.texts()));

const nameOf = (file) => file.replace(/\.\w+$/, '').replaceAll('_', ' ');

function remembered() {
  try {
    const kept = JSON.parse(forGood.get(promptsKey));
    if (Array.isArray(kept) && kept.length && kept.every((text) => typeof text === 'string')) {
      return kept;
    }
  } catch { /* not ours */ }
  return first;
}

// The image.

function imageCard() {
  const choose = el('input', { type: 'file', accept: 'image/*', class: 'hidden', id: unique('file') });
  choose.addEventListener('change', () => {
    take(choose.files[0]);
    choose.value = ''; // so that the same one can be chosen again
  });
  Object.assign(parts, {
    whole: el('canvas', { role: 'img', 'aria-label': 'The image; what the model does not see of it is darker', hidden: true }),
    invited: el('span', {}, el('strong', {}, 'Drop an image here'), 'or paste one, choose a file, use the camera, or try a sample'),
    unseen: el('span', { hidden: true }, el('strong', {}, 'This browser cannot show it'), 'the service may read it all the same'),
    caption: el('p', { class: 'caption soft' }),
    samples: el('select', { 'aria-label': 'Sample images', hidden: true }),
    cameraButton: el('button', { type: 'button', onclick: startCamera }, 'Camera'),
    takeButton: el('button', { type: 'button', hidden: true, onclick: takeFrame }, 'Keep this frame'),
    stopButton: el('button', { type: 'button', hidden: true, onclick: stopCamera }, 'Stop'),
    rate: el('span', { class: 'live', hidden: true }),
    imageError: el('div'),
  });
  parts.samples.addEventListener('change', async () => {
    const name = parts.samples.value;
    if (name) {
      try {
        await take(await (await request(`/console/${name}`, { cache: 'default' })).blob(), name);
      } catch (err) {
        fail(err);
      }
    }
  });
  parts.invitation = el('p', { class: 'invitation' }, parts.invited, parts.unseen);
  parts.stage = el('div', { class: 'stage empty' }, parts.whole, parts.invitation);
  return el('section', { class: 'card' },
    el('div', { class: 'head' }, el('h2', {}, 'Image'), parts.rate),
    parts.stage,
    parts.caption,
    el('div', { class: 'buttons image-tools' },
      choose, el('label', { class: 'button primary', for: choose.id }, 'Choose a file'),
      parts.cameraButton, parts.takeButton, parts.stopButton, parts.samples),
    parts.imageError);
}

function seenCard() {
  Object.assign(parts, { seen: el('canvas', { role: 'img', 'aria-label': 'What the model sees of the image' }), seenWords: el('p', { class: 'soft' }), seenSize: el('span', { class: 'soft' }) });
  parts.seenCard = el('section', { class: 'card later', hidden: true },
    el('div', { class: 'head' }, el('h2', {}, 'As the model sees it'), parts.seenSize),
    el('div', { class: 'seen' }, parts.seen, parts.seenWords));
  return parts.seenCard;
}

// take makes a file the image, and has it classified.
async function take(file, name = file?.name) {
  if (!file) {
    return;
  }
  const mine = ++taken;
  stopCamera();
  if (name !== parts.samples.value) {
    parts.samples.value = '';
  }
  stale();
  let bitmap = null;
  try {
    bitmap = await createImageBitmap(file);
  } catch { /* the service may read what this browser does not, such as TIFF, and says itself what is no image */ }
  if (mine !== taken) { // another one came meanwhile
    bitmap?.close();
    return;
  }
  now.image?.bitmap?.close();
  now.image = { blob: file, name: name || 'image', bitmap, transparent: bitmap !== null && transparent(bitmap) };
  tell(parts.caption, [now.image.name, bitmap && `${bitmap.width} × ${bitmap.height}`, bytes(file.size)].filter(Boolean).join(' · '));
  draw();
  await classify();
}

function draw() {
  const bitmap = now.image?.bitmap;
  parts.stage.classList.toggle('empty', !bitmap && !now.camera);
  parts.whole.hidden = !bitmap && !now.camera;
  parts.invitation.hidden = !parts.whole.hidden;
  parts.unseen.hidden = !now.image || bitmap !== null;
  parts.invited.hidden = !parts.unseen.hidden;
  parts.seenCard.hidden = !bitmap;
  if (bitmap) {
    drawSeen(parts.seen, bitmap, bitmap.width, bitmap.height, settings);
    tell(parts.seenWords, inWords[settings.fit] + (now.image.transparent ? ' Where this image is transparent the model sees the colours that are stored there, which no browser shows.' : ''));
    if (!now.camera) {
      drawWhole(parts.whole, bitmap, bitmap.width, bitmap.height, settings);
    }
  }
}

// The camera: one frame after the other, each sent when the one before it is answered.

async function startCamera() {
  fill(parts.imageError);
  const why = noCamera();
  if (why) {
    fill(parts.imageError, notice('bad', why));
    return;
  }
  const mine = opening = {};
  set(parts.cameraButton, { disabled: true });
  try {
    const camera = await openCamera(stopCamera);
    if (opening !== mine) { // meanwhile another view is shown
      camera.stop();
      set(parts.cameraButton, { disabled: false });
      return;
    }
    now.image?.bitmap?.close();
    now.image = null;
    now.camera = camera;
    parts.samples.value = '';
    cameraControls(true);
    tell(parts.caption, `camera · ${camera.width} × ${camera.height}`);
    draw();
    showVideo(camera);
    watch(camera).catch((err) => {
      stopCamera();
      fail(err);
    });
  } catch (err) {
    fill(parts.imageError, notice('bad', err.message));
  }
  set(parts.cameraButton, { disabled: false });
}

function cameraControls(on) {
  const had = [parts.cameraButton, parts.takeButton, parts.stopButton].includes(document.activeElement);
  parts.cameraButton.hidden = on;
  parts.takeButton.hidden = parts.stopButton.hidden = parts.rate.hidden = !on;
  if (had) { // the button with the focus is gone
    (on ? parts.stopButton : parts.cameraButton).focus();
  }
}

function stopCamera() {
  if (!now.camera) {
    return;
  }
  now.camera.stop();
  now.camera = null;
  cameraControls(false);
  draw();
}

// takeFrame makes what the camera shows the image.
async function takeFrame() {
  await take(await frame(now.camera), 'frame.jpg');
}

function showVideo(camera) {
  if (now.camera === camera) {
    drawWhole(parts.whole, camera.video, camera.width, camera.height, settings);
    requestAnimationFrame(() => showVideo(camera));
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const looking = () => (document.hidden ? new Promise((resolve) => document.addEventListener('visibilitychange', resolve, { once: true })) : null);

async function watch(camera) {
  let rate = 0, last = performance.now();
  tell(parts.rate, 'live');
  while (now.camera === camera) {
    await looking();
    if (now.camera !== camera) {
      return;
    }
    const blob = await frame(camera);
    const bitmap = await createImageBitmap(blob);
    if (now.camera !== camera) {
      return;
    }
    now.image?.bitmap?.close();
    now.image = { blob, name: 'frame.jpg', bitmap };
    draw();
    const err = await classify();
    if (err || !parts.rows.texts().length && !now.set) {
      await pause(1000 * (err?.retryAfter || 1));
      last = performance.now();
      continue;
    }
    const took = performance.now() - last;
    last += took;
    rate = rate ? 0.8 * rate + 0.2 * (1000 / took) : 1000 / took;
    tell(parts.rate, `live · ${rate < 10 ? rate.toFixed(1) : Math.round(rate)} images/s`);
  }
}

// The prompts and the result.

function resultCard() {
  Object.assign(parts, {
    sets: el('select', { id: unique('sets') }),
    headline: el('p', { class: 'headline', role: 'status' }, el('span', {}, 'Which of these does the image show?')),
    errors: el('div'),
    foot: el('p', { class: 'soft' }),
    scale: el('span', {}, 'cosine, from 0 to 1'),
    sortButton: el('button', { type: 'button', class: 'quiet', hidden: true, onclick: sort }, 'Sort by score'),
  });
  parts.sets.addEventListener('change', () => chooseSet(parts.sets.value));
  parts.against = el('div', { class: 'buttons', hidden: true }, el('label', { class: 'soft', for: parts.sets.id }, 'Compare with'), parts.sets);
  parts.editor = el('div', {}, parts.rows.element,
    el('div', { class: 'buttons editing' }, el('button', { type: 'button', class: 'quiet', onclick: () => parts.rows.add() }, '+ Add a prompt'), parts.sortButton));
  parts.result = el('section', { class: 'card results', 'aria-label': 'Prompts and result' },
    el('div', { class: 'head' }, el('h2', {}, 'Prompts'), parts.against),
    parts.errors, parts.headline, parts.editor, parts.labels.element,
    el('p', { class: 'key soft' }, el('span', {}, el('i'), 'probability'), el('span', {}, el('i', { class: 'second' }), parts.scale)),
    parts.foot);
  parts.labels.element.hidden = true;
  return parts.result;
}

function sort() {
  parts.rows.sort(now.answer.classifications);
  remember();
}

function chooseSet(name) {
  if (now.set === name) {
    return;
  }
  now.set = name;
  parts.editor.hidden = name !== '';
  parts.labels.element.hidden = name === '';
  parts.labels.clear();
  stale();
  classify();
}

// fields are the parts of the form beside the image; null when there is nothing to compare with.
function fields() {
  if (now.set) {
    return [['prompt_set', now.set], ['top_k', '20']];
  }
  const prompts = parts.rows.texts();
  return prompts.length ? [...prompts.map((text) => ['prompts', text]), ['top_k', String(prompts.length)]] : null;
}

// classify asks, and gives up what it has asked before. It returns the error if there was one.
async function classify() {
  parts.later.cancel();
  asking?.abort();
  const asked = fields();
  if (!now.image || !asked) {
    stale();
    return null;
  }
  const controller = asking = new AbortController();
  const form = new FormData();
  form.append('image', now.image.blob, now.image.name);
  for (const [name, value] of asked) {
    form.append(name, value);
  }
  now.asked = { path, file: now.image.name, fields: asked };
  parts.showSource();
  set(parts.result, { 'aria-busy': 'true' });
  try {
    const answer = await json(path, { method: 'POST', body: form, signal: controller.signal });
    now.error = null;
    fill(parts.errors);
    showAnswer(answer);
    return null;
  } catch (err) {
    if (aborted(err)) {
      return null;
    }
    fail(err);
    return err;
  } finally {
    if (asking === controller) {
      asking = null;
      set(parts.result, { 'aria-busy': null });
    }
  }
}

function fail(err) {
  const told = now.error?.message;
  now.error = err instanceof ApiError ? err : new ApiError(`The page has a fault: ${err.message}`, { code: 'page', status: -1 });
  if (!(err instanceof ApiError)) {
    console.error(err);
  }
  stale();
  if (!parts.errors.firstChild || now.error.message !== told) { // the camera meets one again and again
    fill(parts.errors, alert(now.error, () => classify()));
  }
  parts.showSource();
}

// answered are the parts that show an answer.
const answered = () => [parts.headline, parts.foot, parts.timing.element, parts.labels.element, parts.rows.element];

// stale says that what is shown is the answer to something else.
function stale() {
  for (const element of answered()) {
    element.classList.toggle('stale', now.answer !== null);
  }
}

function showAnswer({ data, timing, roundTrip, requestId }) {
  now.answer = data;
  for (const element of answered()) {
    element.classList.remove('stale');
  }
  if (now.set) {
    parts.labels.show(data);
  } else {
    parts.rows.show(data.classifications);
  }
  const [best] = data.classifications;
  tell(parts.scale, `cosine, from 0 to ${cosineScale(data.classifications)}`);
  let text = best?.text ?? 'No label', detail = '';
  if (data.matched === false) {
    text = 'None of these';
    detail = reasons[data.reason] ?? data.reason;
  } else if (best) {
    detail = data.classifications.length > 1 || data.prompt_set ? percent(best.probability) : `cosine ${cosine(best.cosine)}; add a second prompt to compare with`;
  }
  if (parts.headline.dataset.best !== text || !now.camera) { // while the camera runs only what changes is said
    parts.headline.dataset.best = text;
    fill(parts.headline, el('strong', {}, text), el('span', { 'aria-hidden': now.camera ? 'true' : null }, detail));
  } else {
    parts.headline.lastElementChild.textContent = detail;
  }
  parts.sortButton.hidden = data.classifications.length < 2;
  parts.foot.title = requestId;
  fill(parts.foot, ['model ', el('code', {}, data.model), health?.backend ? ` on ${health.backend}` : '', data.score_source ? ` · by ${data.score_source}` : '', ' · request ', el('code', {}, requestId)]);
  parts.timing.element.hidden = false;
  parts.timing.show(timing, roundTrip);
}

async function count() {
  const texts = parts.rows.texts();
  const unknown = texts.filter((text) => !counted.has(text));
  if (unknown.length) {
    try {
      const { data } = await json('/v1/tokens', { method: 'POST', body: { prompts: unknown }, quiet: true });
      if (counted.size > 5000) {
        counted = new Map();
      }
      unknown.forEach((text, i) => counted.set(text, data.prompts[i]));
      settings.max_tokens = data.max_tokens;
    } catch { /* the counts are missing, and why is told by the request for the image */ }
  }
  parts.rows.count(counted, settings.max_tokens);
}

// Copy as.

function copyCard() {
  const pre = el('pre', { class: 'source', tabindex: '0', 'aria-label': 'The request as text' }, el('code'));
  const done = el('span', { class: 'soft', role: 'status' });
  let language = 'curl';
  const text = () => languages[language](now.asked, location.origin, key() !== '' || now.error?.status === 401);
  const buttons = Object.keys(languages).map((name) => el('button', {
    type: 'button', class: 'quiet', 'aria-pressed': String(name === language),
    onclick: (event) => {
      language = name;
      for (const b of buttons) {
        set(b, { 'aria-pressed': String(b === event.currentTarget) });
      }
      parts.showSource();
    },
  }, name));
  parts.showSource = () => {
    parts.copyCard.hidden = !now.asked;
    if (now.asked) {
      tell(pre.firstElementChild, text());
      tell(done, '');
    }
  };
  parts.copyCard = el('section', { class: 'card later', hidden: true },
    el('div', { class: 'head' }, el('h2', {}, 'The same request'),
      el('div', { class: 'buttons' }, done, el('div', { class: 'buttons', role: 'group', 'aria-label': 'Language' }, buttons),
        el('button', {
          type: 'button',
          onclick: async () => {
            try {
              await copy(text());
              tell(done, 'copied');
            } catch (err) {
              tell(done, err.message);
            }
          },
        }, 'Copy'))),
    pre);
  return parts.copyCard;
}
