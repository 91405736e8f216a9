// Elements are made here alone, and text only becomes text: nothing on this page is parsed as HTML.

// el makes an element: el('button', {class: 'quiet', onclick: f, disabled: true}, 'text', other, null). Attributes that are
// false, null or undefined are left out, true is the attribute without a value; on... are listeners. Children may be nested
// lists, and null is none.
export function el(tag, attributes = {}, ...children) {
  return fill(set(document.createElement(tag), attributes), ...children);
}

// svg is el for elements of SVG.
export function svg(tag, attributes = {}, ...children) {
  return fill(set(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes), ...children);
}

// set sets attributes of an element, and takes those away that are false, null or undefined. It returns the element.
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) {
      element.addEventListener(name.slice(2), value);
    } else if (value === false || value == null) {
      element.removeAttribute(name);
    } else {
      element.setAttribute(name, value === true ? '' : value);
    }
  }
  return element;
}

// fill replaces what is in an element. It returns the element.
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((c) => c != null && c !== false));
  return element;
}

// tell writes text where it is not there already, so that screen readers say it only when it changes.
export function tell(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

// field is a labelled input: the label's text, the input, and a hint below it.
export function field(label, input, hint) {
  input.id ||= unique('field');
  const below = hint ? el('small', { id: unique('hint') }, hint) : null;
  if (below) {
    input.setAttribute('aria-describedby', below.id);
  }
  return el('div', { class: 'field' }, el('label', { for: input.id }, label), input, below);
}

// notice is a sentence of a kind: info, warn or bad, of which the last is said at once.
export const notice = (kind, text) => el('p', { class: `notice ${kind}`, role: kind === 'bad' ? 'alert' : null }, text);

// columns is the head of a table; number says which of the columns have numbers.
export const columns = (names, number = () => false) => el('thead', {},
  el('tr', {}, names.map((name, i) => el('th', { scope: 'col', class: number(i) ? 'number' : null }, name))));

let count = 0;

// unique makes an id for an element.
export const unique = (prefix) => `${prefix}-${++count}`;

// debounce calls f once nothing has asked for it during ms. now() calls at once, cancel() not at all.
export function debounce(f, ms) {
  let timer = 0;
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(f, ms);
  };
  later.cancel = () => clearTimeout(timer);
  later.now = () => {
    clearTimeout(timer);
    f();
  };
  return later;
}

// Numbers as they are shown: 97.3 %, 0.284, 1.85 ms.
export const percent = (p) => `${(100 * p).toFixed(1)} %`;
export const cosine = (c) => c.toFixed(3);
export const millis = (ms) => `${ms < 0.1 ? ms.toFixed(3) : ms < 10 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : Math.round(ms)} ms`;
export const bytes = (n) => (n < 1e3 ? `${n} B` : n < 1e6 ? `${(n / 1e3).toFixed(1)} kB` : `${(n / 1e6).toFixed(1)} MB`);
