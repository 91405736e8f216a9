// Small charts on a canvas: a line of one number, and lines of several with levels that can be dragged.

// colour is that of a CSS variable now, light or dark.
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// seriesColour is that of the n-th of several lines or bars, of which eight differ.
const seriesColour = (n) => colour(`--s${n % 8}`);

// begin returns the 2D context of a canvas in CSS pixels, cleared, and its size.
function begin(canvas) {
  const { clientWidth: w, clientHeight: h } = canvas;
  const dots = window.devicePixelRatio || 1;
  const [across, down] = [Math.round(w * dots), Math.round(h * dots)];
  if (canvas.width !== across || canvas.height !== down) {
    canvas.width = across;
    canvas.height = down;
  }
  const g = canvas.getContext('2d');
  g.setTransform(dots, 0, 0, dots, 0, 0);
  g.clearRect(0, 0, w, h);
  return { g, w, h };
}

// sparkline draws values, oldest first, null where there is none; the newest is at the right, where room for so many is. The lower end is 0.
export function sparkline(canvas, values, { room = 120, top = 0, tone = '--accent' } = {}) {
  const { g, w, h } = begin(canvas);
  if (!w || !h) return;
  const high = Math.max(top, ...values.filter((v) => v !== null)) || 1;
  const x = (i) => w - ((values.length - 1 - i) * w) / (room - 1);
  const y = (v) => h - 1.5 - (Math.max(v, 0) / high) * (h - 4);
  g.strokeStyle = g.fillStyle = colour(tone);
  g.lineWidth = 1.5;
  g.lineJoin = 'round';
  for (let from = 0; from < values.length; from++) {
    if (values[from] === null) continue;
    let to = from;
    const line = new Path2D();
    line.moveTo(x(from), y(values[from]));
    while (to + 1 < values.length && values[to + 1] !== null) line.lineTo(x(++to), y(values[to]));
    g.stroke(line);
    line.lineTo(x(to), h);
    line.lineTo(x(from), h);
    g.globalAlpha = 0.12;
    g.fill(line);
    g.globalAlpha = 1;
    from = to;
  }
}

// Margins of a chart of scores, in CSS pixels: the numbers of the axis are left, the names of levels right.
const margin = { left: 30, right: 8, top: 8, bottom: 18 };

// scoreChart draws lines = [{name, points: [[time, score]]}] of the last span milliseconds until now, and levels = [{name, score}].
export function scoreChart(canvas, { lines, levels, now, span, low = 0, high = 1 }) {
  const { g, w, h } = begin(canvas);
  if (!w || !h) return;
  const { left, right, top, bottom } = margin;
  const x = (t) => left + (1 - (now - t) / span) * (w - left - right);
  const y = (s) => h - bottom - ((s - low) / (high - low)) * (h - top - bottom);
  g.font = `11px ${getComputedStyle(canvas).fontFamily}`;
  g.fillStyle = colour('--soft');
  g.strokeStyle = colour('--line');
  g.lineWidth = 1;
  g.textBaseline = 'middle';
  g.textAlign = 'right';
  for (let i = 0; i <= 4; i++) {
    const s = low + ((high - low) * i) / 4;
    g.fillText(s.toFixed(2).replace(/0$/, ''), left - 6, y(s));
    g.beginPath();
    g.moveTo(left, Math.round(y(s)) + 0.5);
    g.lineTo(w - right, Math.round(y(s)) + 0.5);
    g.stroke();
  }
  g.textBaseline = 'alphabetic';
  for (const [part, align] of [[0, 'left'], [0.5, 'center'], [1, 'right']]) {
    g.textAlign = align;
    g.fillText(part === 1 ? 'now' : `−${((span * (1 - part)) / 1000).toFixed(0)} s`, left + part * (w - left - right), h - 4);
  }
  g.save();
  g.beginPath();
  g.rect(left, 0, w - left - right, h - bottom + 2);
  g.clip();
  g.lineJoin = 'round';
  lines.forEach(({ points }, n) => {
    g.strokeStyle = seriesColour(n);
    g.lineWidth = 1.75;
    g.beginPath();
    points.forEach(([t, s], i) => (i ? g.lineTo(x(t), y(s)) : g.moveTo(x(t), y(s))));
    g.stroke();
  });
  g.restore();
  g.setLineDash([5, 4]);
  g.strokeStyle = g.fillStyle = colour('--ink');
  g.lineWidth = 1;
  g.textAlign = 'left';
  for (const { name, score } of levels) {
    const at = Math.round(y(score)) + 0.5;
    g.beginPath();
    g.moveTo(left, at);
    g.lineTo(w - right, at);
    g.stroke();
    g.fillText(`${name} ${score.toFixed(2)}`, left + 4, at - 3);
  }
  g.setLineDash([]);
}

// scoreAt is the score at a height of a chart, in CSS pixels from its upper edge, within low and high.
export function scoreAt(canvas, offset, low = 0, high = 1) {
  const inner = canvas.clientHeight - margin.top - margin.bottom;
  const part = (canvas.clientHeight - margin.bottom - offset) / inner;
  return low + (high - low) * Math.min(1, Math.max(0, part));
}
