// The live view of a stream: frames of this browser go in, answers come out; regions are drawn on the image.
import { socket } from './api.js';
import { el, fill, millis, notice, set, tell } from './dom.js';
import { fileButton } from './files.js';
import { Feed, openSource } from './feed.js';
import { whileVisible, within } from './life.js';
import { reasons } from './prompts.js';
import { regionEditor } from './regions.js';

const mostBars = 12; // of a region

// live fills root. on has answer(a) for what became of a frame, change(make) to store the definition, fail(err).
export function live(root, { id, signal, sets, definition, on }) {
  const canvas = el('canvas', { role: 'img', 'aria-label': 'The frame that was sent last', width: 640, height: 360 });
  const layer = el('div', { class: 'layer' });
  const stage = el('div', { class: 'frame', 'data-state': 'empty' }, canvas, layer);
  const hint = el('p', { class: 'hint' }, 'Try it: the webcam of this browser, a video (MP4) or an image is sent as a camera would send its frames. Regions can be drawn before that.');
  const problem = el('div');
  const answers = el('div', { class: 'answers' });
  const numbers = el('dl', { class: 'counters' });
  const rate = el('select', { 'aria-label': 'Frames a second' }, [1, 2, 5, 10, 15, 30].map((n) => el('option', { value: n, selected: n === 10 }, `${n} frames/s`)));
  const stop = el('button', { type: 'button', hidden: true, onclick: () => run?.end() }, 'Stop');
  const webcam = el('button', { type: 'button', class: 'primary', onclick: () => begin('webcam') }, 'Webcam');
  const file = fileButton('Video or image…', { accept: 'video/mp4,video/quicktime,image/*' }, ([f]) => f && begin(f));
  const running = (on_) => {
    stop.hidden = !on_;
    webcam.hidden = file.hidden = on_;
    (on_ ? stop : webcam).focus();
  };
  const countsNow = { answered: 0, dropped: 0, superseded: 0, lag: null, trip: null, times: [] };
  let run = null;
  let feed = null;

  const regions = regionEditor(layer, {
    regions: definition.regions ?? [], sets,
    changed: (list) => feed?.change({ regions: list }), // tried at once
    store: (list) => on.change((d) => {
      d.regions = list;
    }).then((done) => {
      if (done) {
        feed?.change({ regions: list });
      }
      return done;
    }),
  });

  fill(root, el('div', { class: 'head' }, el('h2', {}, 'Live view'), el('div', { class: 'buttons' }, rate, webcam, file, stop)),
    problem, el('div', { class: 'columns' }, el('div', {}, stage, hint, regions.table), el('div', {}, numbers, answers)));
  rate.addEventListener('change', () => {
    if (feed) {
      feed.fps = Number(rate.value);
    }
  });
  show();

  // begin sends frames of a source until it is stopped. While the page is hidden nothing is sent, and the camera is off.
  function begin(from) {
    run?.end();
    const mine = (run = within(signal));
    fill(problem);
    running(true);
    mine.signal.addEventListener('abort', () => {
      if (run === mine) {
        run = null;
        stage.dataset.state = 'empty';
        running(false);
      }
    }, { once: true });
    whileVisible(mine.signal, (visible) => send(from, visible, mine).catch((err) => {
      mine.end();
      fill(problem, notice('bad', err.message));
    }));
  }

  async function send(from, visible, mine) {
    const source = await openSource(from, (why) => {
      mine.end();
      fill(problem, notice('bad', why));
    });
    if (visible.aborted) {
      return source.stop();
    }
    visible.addEventListener('abort', source.stop, { once: true });
    Object.assign(countsNow, { answered: 0, dropped: 0, superseded: 0, lag: null, trip: null, times: [] });
    const one = new Feed({
      open: () => socket('/v1/stream'), definition: { id, policy: 'latest', regions: regions.list() }, source, fps: Number(rate.value), signal: visible,
      on: {
        frame: (c) => draw(c, source),
        answer: answered,
        event: () => {}, // the list of events hears of it
        refused: (why) => fill(problem, notice('bad', why)),
        end: (why) => {
          if (feed === one) {
            feed = null;
          }
          if (why) {
            mine.end();
            fill(problem, notice('bad', why));
          }
        },
      },
    });
    feed = one;
    return undefined;
  }

  function draw(c) {
    if (canvas.width !== c.width || canvas.height !== c.height) {
      canvas.width = c.width;
      canvas.height = c.height;
    }
    canvas.getContext('2d').drawImage(c, 0, 0);
    stage.dataset.state = 'live';
  }

  // answered takes what became of a frame; trip is how long it took from here and back, null where it was not sent from here.
  function answered(a, trip) {
    const now = performance.now();
    const c = countsNow;
    if (a.dropped) {
      c.dropped++;
      c.superseded += a.dropped === 'superseded';
      if (a.error) {
        fill(problem, notice('bad', a.error));
      }
    } else {
      c.answered++;
      c.times = [...c.times.filter((t) => now - t < 3000), now];
      c.lag = a.lag_ms;
      c.trip = trip;
      bars(a);
      on.answer(a);
    }
    show();
  }

  function show() {
    const c = countsNow;
    const list = [
      ['answers/s', c.times.length > 1 ? ((1000 * (c.times.length - 1)) / (c.times.at(-1) - c.times[0])).toFixed(1) : '–'],
      ['lag', c.lag === null ? '–' : millis(c.lag)], ['there and back', c.trip === null ? '–' : millis(c.trip)],
      ['dropped', c.dropped], ['not sent', feed?.skipped ?? 0],
    ];
    if (!numbers.children.length) {
      fill(numbers, list.map(([name]) => el('div', {}, el('dt', {}, name), el('dd', {}))));
    }
    list.forEach(([, value], i) => tell(numbers.children[i].lastChild, String(value)));
  }

  const groups = new Map(); // of bars, by region

  // bars shows the scores of a frame, of each region by itself.
  function bars(a) {
    const list = a.regions ?? [{ name: '', ...a }];
    if (list.length !== groups.size || list.some((r) => !groups.has(r.name))) {
      groups.clear();
      fill(answers, list.map((r) => {
        const group = { rows: new Map(), list: el('ul', { class: 'scores' }), why: el('p', { class: 'soft' }) };
        groups.set(r.name, group);
        return el('div', {}, r.name ? el('h3', {}, r.name) : null, group.list, group.why);
      }));
    }
    for (const r of list) {
      const group = groups.get(r.name);
      const best = r.matched === false ? '' : r.classifications[0]?.text;
      const shown = r.classifications.slice(0, mostBars);
      const labels = shown.map((c) => c.text).sort();
      if (labels.join('\n') !== [...group.rows.keys()].join('\n')) {
        group.rows.clear();
        fill(group.list, labels.map((text) => {
          const row = { fill: el('i'), value: el('span', { class: 'number' }) };
          row.element = el('li', {}, el('span', { class: 'name' }, text), row.value, el('div', {}, row.fill));
          group.rows.set(text, row);
          return row.element;
        }));
      }
      for (const c of shown) {
        const row = group.rows.get(c.text);
        row.fill.style.width = `${100 * Math.min(1, Math.max(0, c.score))}%`;
        tell(row.value, c.score.toFixed(3));
        row.element.classList.toggle('best', c.text === best);
      }
      tell(group.why, r.reason ? `None of these: ${reasons[r.reason] ?? r.reason}.` : '');
    }
  }

  set(stage, { role: 'group', 'aria-label': 'Frame with regions' });
  return {
    answered,
    fed: () => Boolean(feed),
    define: (d) => {
      regions.replace(d.regions ?? []);
      feed?.change({ regions: d.regions ?? [] });
    },
  };
}
