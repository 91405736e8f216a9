// Regions of a stream, drawn on its image: boxes that are dragged, or moved with the arrow keys, and fields with their numbers.

import { columns, el, fill } from './dom.js';

const mostRegions = 8;
const least = 0.02; // of the width or height
const step = 0.01;

const clamp = (v, low, high) => Math.min(high, Math.max(low, v));
const round = (v) => Math.round(v * 1000) / 1000;

// fitted is the box within the image, at least as large as may be; the service wants x + w <= 1 to the last digit.
export function fitted({ x, y, w, h }) {
  w = clamp(round(w), least, 1);
  h = clamp(round(h), least, 1);
  x = clamp(round(x), 0, round(1 - w));
  y = clamp(round(y), 0, round(1 - h));
  return { x, y, w, h };
}

// spanned is the box between two corners.
function spanned(a, b) {
  const [x, y] = [Math.min(a.x, b.x), Math.min(a.y, b.y)].map((v) => clamp(v, 0, 1 - least));
  return fitted({ x, y, w: clamp(Math.max(a.x, b.x), 0, 1) - x, h: clamp(Math.max(a.y, b.y), 0, 1) - y });
}

// newName is the first of region-1, region-2, ... that no region has.
function newName(regions) {
  const taken = new Set(regions.map((r) => r.name));
  for (let n = 1; ; n++) if (!taken.has(`region-${n}`)) return `region-${n}`;
}

// moved is a box after an arrow key: with Shift the lower right corner moves alone. null: the key means nothing here.
export function moved(box, { key, shiftKey }) {
  const [dx, dy] = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[key] ?? [];
  if (dx === undefined) return null;
  if (!shiftKey) return fitted({ ...box, x: box.x + dx, y: box.y + dy });
  return fitted({ ...box, w: Math.min(box.w + dx, 1 - box.x), h: Math.min(box.h + dy, 1 - box.y) });
}

// regionEditor puts boxes on layer, which lies on the image, and makes a table of their numbers: {table, list(), replace(list)}. changed(list) is
// called with each change, store(list) when the person wants it to be kept: it resolves to whether that was done. sets are names of prompt sets.
export function regionEditor(layer, { regions, sets, changed, store }) {
  let list = structuredClone(regions);
  let kept = JSON.stringify(list);
  const rows = el('tbody');
  const save = el('button', { type: 'button', class: 'primary', onclick: async () => {
    if (await store(structuredClone(list))) {
      kept = JSON.stringify(list);
      show();
    }
  } }, 'Save the regions');
  const add = el('button', { type: 'button', onclick: () => {
    list.push({ name: newName(list), ...fitted({ x: 0.3, y: 0.3, w: 0.4, h: 0.4 }) });
    done();
    layer.lastElementChild.focus();
  } }, 'Add a region');
  const note = el('span', { class: 'soft' });
  const table = el('details', { class: 'regions', open: list.length > 0 }, el('summary', {}, 'Regions'),
    el('p', { class: 'soft' }, 'Each is answered by itself. Draw on the image, drag, or use the arrow keys (with Shift: the size; Delete: away). Numbers are percent of width and height.'),
    el('div', { class: 'wide scroll' }, el('table', {}, columns(['Name', 'left', 'top', 'width', 'height', 'Prompt set', '']), rows)),
    el('div', { class: 'buttons' }, add, save, note));

  // done tells of a change that is complete, and shows it.
  function done() {
    show();
    changed(structuredClone(list));
  }

  function remove(i) {
    list.splice(i, 1);
    done();
    (layer.children[Math.min(i, list.length - 1)] ?? add).focus();
  }

  function show() {
    const at = [...layer.children].indexOf(document.activeElement);
    fill(layer, list.map(box));
    layer.children[at]?.focus();
    fill(rows, list.map(row));
    save.disabled = JSON.stringify(list) === kept;
    add.disabled = list.length >= mostRegions;
    note.textContent = save.disabled ? '' : 'Not saved';
  }

  function place(element, r) {
    for (const [name, value] of [['left', r.x], ['top', r.y], ['width', r.w], ['height', r.h]]) {
      element.style[name] = `${100 * value}%`;
    }
  }

  function box(r, i) {
    const element = el('div', { class: `region c${i % 8}`, tabindex: '0', role: 'group', 'aria-label': `Region ${r.name}`, 'aria-roledescription': 'region that can be moved' },
      el('span', {}, r.name), el('i', { class: 'corner' }));
    place(element, r);
    element.addEventListener('keydown', (e) => {
      const next = e.key === 'Delete' ? null : moved(r, e);
      if (e.key === 'Delete') {
        e.preventDefault();
        remove(i);
      } else if (next) {
        e.preventDefault();
        Object.assign(r, next);
        done();
      }
    });
    return element;
  }

  function row(r, i) {
    const percent = (name) => el('td', {}, el('input', {
      type: 'number', min: 0, max: 100, step: 0.5, inputmode: 'decimal', value: +(100 * r[name]).toFixed(1), 'aria-label': `${r.name}: ${{ x: 'left', y: 'top', w: 'width', h: 'height' }[name]}`,
      onchange: (e) => {
        Object.assign(r, fitted({ ...r, [name]: Number(e.target.value) / 100 }));
        done();
        rows.children[i].querySelectorAll('input')[['x', 'y', 'w', 'h'].indexOf(name) + 1].focus();
      },
    }));
    return el('tr', {},
      el('td', {}, el('input', { value: r.name, maxlength: 64, 'aria-label': 'Name of the region', onchange: (e) => {
        const name = e.target.value.trim();
        if (/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name) && !list.some((o) => o !== r && o.name === name)) {
          r.name = name;
        }
        done();
      } })),
      ['x', 'y', 'w', 'h'].map(percent),
      el('td', {}, el('select', { 'aria-label': `${r.name}: prompt set`, onchange: (e) => {
        if (e.target.value) {
          r.prompt_set = e.target.value;
        } else {
          delete r.prompt_set;
        }
        done();
      } }, el('option', { value: '' }, 'stream’s'), sets.map((s) => el('option', { value: s, selected: s === r.prompt_set }, s)))),
      el('td', {}, el('button', { type: 'button', class: 'quiet', 'aria-label': `Remove the region ${r.name}`, onclick: () => remove(i) }, '×')));
  }

  // What is dragged: the layer itself draws a new box, a box moves, its corner changes its size.
  layer.addEventListener('pointerdown', (down) => {
    if (down.button !== 0 || (down.target === layer && list.length >= mostRegions)) {
      return;
    }
    down.preventDefault();
    const bounds = layer.getBoundingClientRect();
    const at = (e) => ({ x: (e.clientX - bounds.left) / bounds.width, y: (e.clientY - bounds.top) / bounds.height });
    const from = at(down);
    const drawn = down.target === layer;
    const i = drawn ? list.length : [...layer.children].indexOf(down.target.closest('.region'));
    const before = drawn ? null : { ...list[i] };
    const corner = down.target.classList.contains('corner');
    const here = drawn ? { name: newName(list), ...fitted({ ...from, w: least, h: least }) } : list[i];
    const element = drawn ? box(here, i) : layer.children[i];
    if (drawn) {
      layer.append(element);
    }
    layer.setPointerCapture(down.pointerId);
    let dragged = false;
    const move = (e) => {
      const to = at(e);
      dragged ||= Math.abs(to.x - from.x) + Math.abs(to.y - from.y) > least / 2;
      const [dx, dy] = [to.x - from.x, to.y - from.y];
      Object.assign(here, drawn ? spanned(from, to)
        : corner ? fitted({ ...before, w: Math.min(before.w + dx, 1 - before.x), h: Math.min(before.h + dy, 1 - before.y) })
          : fitted({ ...before, x: before.x + dx, y: before.y + dy }));
      place(element, here);
    };
    const up = () => {
      layer.removeEventListener('pointermove', move);
      layer.removeEventListener('pointerup', up);
      layer.removeEventListener('pointercancel', up);
      if (drawn && dragged) {
        list.push(here);
        table.open = true;
      }
      if (dragged) {
        done();
      } else if (drawn) {
        element.remove();
      }
      layer.children[i]?.focus();
    };
    layer.addEventListener('pointermove', move);
    layer.addEventListener('pointerup', up);
    layer.addEventListener('pointercancel', up);
  });

  show();
  return {
    table,
    list: () => structuredClone(list),
    replace(regions_) {
      if (JSON.stringify(regions_) !== kept) {
        list = structuredClone(regions_);
        kept = JSON.stringify(list);
        show();
      }
    },
  };
}
