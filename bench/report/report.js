// Draws the figures of the page with uPlot; figures.go says what is in them.
'use strict';
const probe = document.body.appendChild(document.createElement('i'));
const colour = css => { probe.style.color = css; return getComputedStyle(probe).color; }; // a canvas knows no var()
const number = v => v === 0 ? '0' : String(Number(v.toPrecision(3)));
const percent = nines => (100 - 100 * 10 ** -nines).toFixed(Math.max(0, Math.ceil(nines) - 2));

// scale spreads the values of an axis.
function scale(axis, values) {
  if (axis.log) return { time: false, distr: 3 };
  const most = Math.max(...values);
  if (axis.whole) return { time: false, range: [0.4, most + 0.6] };
  if (axis.nines) return { time: false, range: [0, Math.max(2, most)] };
  return { time: false, range: [0, most > 0 ? 1.05 * most : 1] };
}

function ruler(axis, key) {
  return {
    scale: key, label: axis.label, labelSize: 18, size: key === 'x' ? 32 : 52, font: '12px system-ui', labelFont: '12px system-ui',
    stroke: () => colour('var(--soft)'), ticks: { stroke: () => colour('var(--axis)'), size: 4 },
    grid: { show: key === 'y', stroke: () => colour('var(--grid)'), width: 1 },
    ...axis.whole && { incrs: [1, 2, 5, 10, 20, 50, 100] },
    ...axis.nines && { splits: u => [0, Math.log10(2), 1, 2, 3, 4, 5].filter(v => v <= u.scales.y.max), values: (u, list) => list.map(percent) },
  };
}

function series(line, figure) {
  const style = line.style || '', ink = () => colour(line.colour), points = style.includes('dots') || style === 'rings';
  return {
    label: line.name, stroke: ink, fill: style === 'bars' ? ink : null, width: style === 'rings' ? 0 : 2, dash: style.includes('dashed') ? [5, 4] : [],
    facets: [{ scale: 'x', auto: true }, { scale: 'y', auto: true }],
    paths: style === 'bars' ? uPlot.paths.bars({ size: [0.8, 46] }) : style === 'rings' ? () => null : uPlot.paths.linear(),
    points: { show: points, filter: (u, i) => points ? u.data[i][0].map((x, at) => at) : null,
      size: style === 'rings' ? 13 : 7, width: 2, stroke: ink, fill: style === 'rings' ? () => 'transparent' : ink },
    value: (u, v, i, at) => {
      if (at == null || !u.data[i]) return '';
      const [x, y] = [u.data[i][0][at], u.data[i][1][at]];
      return y == null ? '' : `${figure.y.nines ? percent(y) : number(y)} at ${number(x)}`;
    },
  };
}

// texts writes beside the points, where there is room.
function texts(u, lines) {
  u.ctx.fillStyle = colour('var(--soft)');
  u.ctx.font = `${11 * devicePixelRatio}px system-ui`;
  u.ctx.textAlign = 'right';
  lines.forEach((line, i) => {
    let x = -99, y = -99;
    (u.series[i + 1].show && line.texts || []).forEach((text, at) => {
      const toX = u.valToPos(u.data[i + 1][0][at], 'x', true), toY = u.valToPos(u.data[i + 1][1][at], 'y', true);
      if (Math.hypot(toX - x, toY - y) > 16 * devicePixelRatio) u.ctx.fillText(text, toX - 8, toY - 8), [x, y] = [toX, toY];
    });
  });
}

function plot(figure, into) {
  const lines = (figure.lines || []).filter(line => line.points?.length);
  if (!lines.length) return void (into.textContent = 'There are no values.');
  const data = lines.map(({ points }) => {
    const apart = figure.x.gaps ? 1.5 * Math.min(...points.slice(1).map((p, i) => p[0] - points[i][0])) : Infinity;
    const all = points.flatMap((p, i) => i && p[0] - points[i - 1][0] > apart ? [[p[0], null], p] : [p]); // null is a gap
    return [all.map(p => p[0]), all.map(p => p[1])];
  });
  const size = () => ({ width: into.clientWidth, height: 300 });
  const u = new uPlot({
    ...size(), mode: 2, axes: [ruler(figure.x, 'x'), ruler(figure.y, 'y')], series: [null, ...lines.map(line => series(line, figure))],
    scales: { x: scale(figure.x, data.flatMap(d => d[0])), y: scale(figure.y, data.flatMap(d => d[1])) },
    legend: { markers: { stroke: (u, i) => lines[i - 1].colour, fill: (u, i) => lines[i - 1].style?.includes('dashed') ? 'none' : lines[i - 1].colour } },
    cursor: { drag: { x: false, y: false }, dataIdx: (u, i) => { // the nearest point
      let best = null, least = 40;
      u.data[i]?.[0].forEach((x, at) => {
        const d = u.data[i][1][at] == null ? least : Math.hypot(u.valToPos(x, 'x') - u.cursor.left, u.valToPos(u.data[i][1][at], 'y') - u.cursor.top);
        if (d < least) [best, least] = [at, d];
      });
      return best;
    } },
    hooks: { draw: [u => texts(u, lines)] },
  }, [null, ...data], into);
  new ResizeObserver(() => u.setSize(size())).observe(into);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => u.redraw());
}

JSON.parse(document.getElementById('figures').textContent).forEach((figure, i) => plot(figure, document.getElementById('figure' + i)));
