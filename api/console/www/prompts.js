// The list of prompts with what each scores, which may be edited, and that of the labels of a prompt set, which may not.
import { cosine, el, fill, percent, set, tell, unique } from './dom.js';

// cosineScale is the cosine of a full bar: those of photographs and sentences are far below 1.
export const cosineScale = (classifications) => (classifications.some((entry) => entry.cosine > 0.5) ? 1 : 0.5);

// reasons are why nothing matches, by the answer's reason.
export const reasons = {
  negative: 'something that is none of the labels fits better',
  min_cosine: 'the best label is not similar enough',
  min_margin: 'the best label is too near to the next one',
};

// bars are the two bars of a row. show takes an entry of the answer's classifications, undefined for none.
function bars() {
  const share = el('i'), near = el('i');
  return {
    element: el('div', { class: 'bars', 'aria-hidden': 'true' }, el('div', {}, share), el('div', {}, near)),
    show(entry, scale) {
      share.style.width = `${100 * (entry?.probability ?? 0)}%`;
      near.style.width = `${100 * Math.min(1, Math.max(0, (entry?.cosine ?? 0) / scale))}%`;
    },
  };
}

const number = (kind, what) => {
  const value = el('span', { 'aria-hidden': 'true' }, '–'), said = el('span', { class: 'hidden' }, `${what}: none yet`);
  return {
    element: el('span', { class: `number ${kind}` }, value, said),
    show(text) {
      tell(value, text || '–');
      tell(said, `${what}: ${text || 'none yet'}`);
    },
  };
};

const names = (...list) => el('li', { class: 'names', 'aria-hidden': 'true' }, list.map((name) => el('span', {}, name)));

// labelRows shows the labels of an answer in its order.
export function labelRows() {
  const list = el('ol', { class: 'rows labels', 'aria-label': 'Labels' });
  return {
    element: list,
    show({ classifications, matched }) {
      fill(list, names('label', 'probability', 'cosine'), classifications.map((entry, i) => {
        const bar = bars(), share = number('share', 'probability'), near = number('near', 'cosine');
        bar.show(entry, cosineScale(classifications));
        share.show(percent(entry.probability));
        near.show(cosine(entry.cosine));
        return el('li', { class: i === 0 && matched !== false ? 'best' : null }, el('span', { class: 'label' }, entry.text), share.element, near.element, bar.element);
      }));
    },
    clear() { fill(list); },
  };
}

// promptRows is the list of prompts; changed is called when one is another. Enter adds a prompt, Backspace in an empty one removes it,
// the arrows go up and down, and of a text of many lines that is pasted each becomes a prompt.
export function promptRows(texts, changed) {
  const list = el('ol', { class: 'rows', 'aria-label': 'Prompts' }, names('prompt', 'probability', 'cosine', 'tokens', ''));
  let rows = [];

  function row(text) {
    const input = el('input', { type: 'text', value: text, autocomplete: 'off', spellcheck: 'true', enterkeyhint: 'next' });
    const note = el('p', { class: 'note', id: unique('note'), hidden: true });
    const remove = el('button', { type: 'button', class: 'quiet', title: 'Remove' }, '×');
    const r = { input, remove, note, bar: bars(), share: number('share', 'probability'), near: number('near', 'cosine'), tokens: number('tokens', 'tokens') };
    r.element = el('li', {}, input, r.share.element, r.near.element, r.tokens.element, remove, r.bar.element, note);
    input.addEventListener('input', changed);
    input.addEventListener('keydown', (event) => pressed(event, r));
    input.addEventListener('paste', (event) => pasted(event, r));
    remove.addEventListener('click', () => drop(r));
    return r;
  }

  function number_() {
    rows.forEach((r, i) => {
      set(r.input, { 'aria-label': `Prompt ${i + 1}`, placeholder: i === 0 ? 'a photo of a cat' : null });
      set(r.remove, { 'aria-label': `Remove prompt ${i + 1}`, disabled: rows.length === 1 });
    });
  }

  function insert(after, lines) {
    const added = lines.map(row);
    rows.splice(rows.indexOf(after) + 1, 0, ...added);
    (after?.element ?? list.firstElementChild).after(...added.map((r) => r.element));
    number_();
    return added;
  }

  function drop(r) {
    const i = rows.indexOf(r);
    if (rows.length === 1) {
      return;
    }
    rows.splice(i, 1);
    r.element.remove();
    number_();
    rows[Math.min(i, rows.length - 1)].input.focus();
    changed();
  }

  function pressed(event, r) {
    if (event.isComposing) {
      return;
    }
    const i = rows.indexOf(r);
    if (event.key === 'Enter') {
      insert(r, [''])[0].input.focus();
    } else if (event.key === 'Backspace' && r.input.value === '' && rows.length > 1) {
      drop(r);
    } else if (event.key === 'ArrowDown' && rows[i + 1]) {
      rows[i + 1].input.focus();
    } else if (event.key === 'ArrowUp' && rows[i - 1]) {
      rows[i - 1].input.focus();
    } else {
      return;
    }
    event.preventDefault();
  }

  function pasted(event, r) {
    const lines = (event.clipboardData?.getData('text/plain') ?? '').split(/\r?\n/).map((l) => l.trim()).filter(Boolean);
    if (lines.length < 2) {
      return;
    }
    event.preventDefault();
    const { selectionStart: start, selectionEnd: end, value } = r.input;
    r.input.value = value.slice(0, start) + lines[0] + value.slice(end);
    insert(r, lines.slice(1)).at(-1).input.focus();
    changed();
  }

  function replace(texts) {
    for (const r of rows) {
      r.element.remove();
    }
    rows = [];
    insert(null, texts.length ? texts : ['']);
  }
  replace(texts);

  return {
    element: list,
    replace,
    // add appends an empty prompt, to be written.
    add() { insert(rows.at(-1), [''])[0].input.focus(); },
    // texts are the prompts that are not empty, each once.
    texts() { return [...new Set(rows.map((r) => r.input.value.trim()).filter(Boolean))]; },
    // show takes the answer's classifications, which name prompts by their text.
    show(classifications) {
      const by = new Map(classifications.map((entry) => [entry.text, entry]));
      for (const r of rows) {
        const entry = by.get(r.input.value.trim());
        r.bar.show(entry, cosineScale(classifications));
        r.share.show(entry && percent(entry.probability));
        r.near.show(entry && cosine(entry.cosine));
        set(r.element, { class: entry?.rank === 1 ? 'best' : null });
      }
    },
    // count takes {tokens, truncated} by text, and how many the model reads.
    count(by, most) {
      for (const r of rows) {
        const counted = by.get(r.input.value.trim());
        r.tokens.show(counted && `${counted.tokens}${counted.truncated ? '+' : ''}`);
        r.tokens.element.classList.toggle('long', counted?.truncated ?? false);
        r.note.hidden = !counted?.truncated;
        tell(r.note, counted?.truncated ? `Too long: the model reads ${most} tokens, and what comes after them is cut off.` : '');
        set(r.input, { 'aria-describedby': counted?.truncated ? r.note.id : null });
      }
    },
    // sort puts the prompts in the order of the answer.
    sort(classifications) {
      const rank = new Map(classifications.map((entry) => [entry.text, entry.rank]));
      const of = (r) => rank.get(r.input.value.trim()) ?? Infinity;
      rows.sort((a, b) => of(a) - of(b) || 0);
      list.append(...rows.map((r) => r.element));
      number_();
    },
  };
}
