// The history of scores in a stream, with the thresholds at which labels hold over it.
import { scoreAt, scoreChart } from './chart.js';
import { el, fill, set, tell } from './dom.js';

const spans = [[30_000, '30 s'], [120_000, '2 min'], [600_000, '10 min']];
const longest = 600_000; // milliseconds that are remembered
const mostLines = 8; // labels of a region, those that are seen first

// scores fills root: {answer(a), update(info)}. change(make) stores the definition of the stream.
export function scores(root, { signal, change }) {
  const canvas = el('canvas', { class: 'chart', role: 'img', 'aria-label': 'Scores of the last seconds' });
  const legend = el('ul', { class: 'legend' });
  const region = el('select', { 'aria-label': 'Region', hidden: true, onchange: draw });
  const span = el('select', { 'aria-label': 'Time shown', onchange: draw }, spans.map(([ms, text]) => el('option', { value: ms }, text)));
  const history = new Map(); // by region, by label: [time, score]
  const levels = { enter: 0.6, exit: 0.4 };
  let stored = { ...levels };
  let cosines = false;
  let asked = 0;
  let chosen = false; // thresholds have been changed here

  const slider = (name, text) => {
    const value = el('output', {});
    const box = el('input', { type: 'range', step: 0.005, 'aria-label': text, oninput: () => level(name, Number(box.value)) });
    return { box, value, element: el('label', { class: 'slider' }, el('span', {}, text), box, value) };
  };
  const sliders = { enter: slider('enter', 'Holds from'), exit: slider('exit', 'until below') };
  const save = el('button', { type: 'button', class: 'primary', onclick: async () => {
    if (await change((d) => {
      d.events = { ...d.events, enter: levels.enter, exit: levels.exit };
    })) {
      chosen = false;
      stored = { ...levels };
      show();
    }
  } }, 'Save the thresholds');
  const note = el('p', { class: 'soft' });
  fill(root, el('div', { class: 'head' }, el('h2', {}, 'Scores'), el('div', { class: 'buttons' }, region, span)),
    canvas, legend, el('div', { class: 'sliders' }, sliders.enter.element, sliders.exit.element, save), note);

  function level(name, value) {
    value = Math.round(value * 200) / 200;
    levels[name] = value;
    if (levels.exit > levels.enter) {
      levels[name === 'enter' ? 'exit' : 'enter'] = value;
    }
    chosen = levels.enter !== stored.enter || levels.exit !== stored.exit;
    show();
  }

  function show() {
    for (const [name, s] of Object.entries(sliders)) {
      set(s.box, { min: 0, max: cosines ? 0.5 : 1 });
      s.box.value = levels[name];
      tell(s.value, levels[name].toFixed(3));
    }
    save.disabled = !chosen;
    draw();
  }

  function draw() {
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      const lines = [...(history.get(region.value) ?? [])].map(([name, points]) => ({ name, points }));
      scoreChart(canvas, {
        lines, now: Date.now(), span: Number(span.value), high: cosines ? 0.5 : 1,
        levels: [{ name: 'holds from', score: levels.enter }, { name: 'until below', score: levels.exit }],
      });
      const names = lines.map((l) => l.name).join('\n');
      if (legend.dataset.names !== names) {
        legend.dataset.names = names;
        fill(legend, lines.map((l, n) => el('li', {}, el('i', { class: `c${n % 8}` }), l.name)));
      }
    });
  }

  // A level is dragged where the pointer is near it; the sliders do the same for the keyboard.
  canvas.addEventListener('pointerdown', (down) => {
    const at = (e) => scoreAt(canvas, e.clientY - canvas.getBoundingClientRect().top, 0, cosines ? 0.5 : 1);
    const near = (name) => Math.abs(levels[name] - at(down));
    const name = near('enter') <= near('exit') ? 'enter' : 'exit';
    if (near(name) > (cosines ? 0.04 : 0.08)) {
      return;
    }
    down.preventDefault();
    canvas.setPointerCapture(down.pointerId);
    const move = (e) => level(name, at(e));
    canvas.addEventListener('pointermove', move);
    canvas.addEventListener('lostpointercapture', () => canvas.removeEventListener('pointermove', move), { once: true });
  });

  const resized = new ResizeObserver(draw);
  resized.observe(canvas);
  const dark = matchMedia('(prefers-color-scheme: dark)');
  dark.addEventListener('change', draw, { signal });
  signal.addEventListener('abort', () => resized.disconnect(), { once: true });
  show();

  return {
    answer(a) {
      const now = Date.now();
      const answered = a.regions ?? [{ name: '', classifications: a.classifications }];
      const names = answered.map((r) => r.name);
      if (JSON.stringify(names) !== JSON.stringify([...history.keys()])) { // regions have been changed
        const before = new Map(history);
        history.clear();
        names.forEach((name) => history.set(name, before.get(name) ?? new Map()));
        fill(region, names.map((n) => el('option', { value: n, selected: n === region.value }, n || 'whole frame')));
        region.hidden = names.length < 2;
      }
      for (const r of answered) {
        const lines = history.get(r.name);
        for (const c of r.classifications) {
          if (!lines.has(c.text) && lines.size < mostLines) {
            lines.set(c.text, []);
          }
          lines.get(c.text)?.push([now, c.score]);
        }
        const only = r.classifications.every((c) => c.score === c.cosine && c.cosine !== c.probability);
        if (r.classifications.length && only !== cosines) {
          cosines = only;
          show();
        }
        for (const points of lines.values()) {
          while (points[0]?.[0] < now - longest) {
            points.shift();
          }
        }
      }
      draw();
    },
    update(info) {
      const e = info.events;
      root.classList.toggle('none', !e);
      const enter = e?.enter ?? (cosines ? 0.27 : Math.max(0.6, e?.exit ?? 0));
      const exit = e?.exit ?? (cosines ? Math.min(0.25, enter) : Math.min(0.4, enter));
      stored = { enter, exit };
      if (!chosen && (levels.enter !== enter || levels.exit !== exit)) {
        Object.assign(levels, stored);
        show();
      }
      tell(note, e ? 'A label with a threshold of its own in the prompt set goes by that.' : 'This stream makes no events; saving thresholds turns them on.');
      draw();
    },
  };
}
