// Forms over an object that is sent as JSON: fields for what is common, the text of all of it for the rest.
import { el, field, fill, set, unique } from './dom.js';

const at = (object, path) => path.split('.').reduce((o, name) => o?.[name], object);

// put sets what a path such as events.enter says; undefined takes it away.
export function put(object, path, value) {
  const names = path.split('.');
  const last = names.pop();
  for (const name of names) {
    object = object[name] ??= {};
  }
  if (value === undefined) {
    delete object[last];
  } else {
    object[last] = value;
  }
}

// lines are those of a text that are not empty.
export const lines = (text) => text.split('\n').map((line) => line.trim()).filter(Boolean);

// input makes the input of a field {at, kind, ...}, see fields, that writes to object and then calls changed().
function input(object, f, changed) {
  const now = at(object, f.at);
  const write = (value) => {
    put(object, f.at, value);
    changed();
  };
  switch (f.kind) {
    case 'number': {
      const box = el('input', {
        type: 'number', min: f.min, max: f.max, step: f.step ?? 'any', placeholder: f.placeholder, inputmode: 'decimal',
        value: now ?? '', oninput: () => write(box.value === '' ? f.empty : Number(box.value)),
      });
      return box;
    }
    case 'choice': {
      const box = el('select', { onchange: () => write(box.value === '' ? f.empty : box.value) },
        f.options.map(([value, text]) => el('option', { value, selected: value === (now ?? '') }, text)));
      return box;
    }
    case 'lines': {
      const box = el('textarea', { rows: Math.min(6, Math.max(2, (now ?? []).length + 1)), placeholder: f.placeholder, spellcheck: 'false' });
      box.value = (now ?? []).join('\n');
      box.addEventListener('input', () => write(lines(box.value)));
      return box;
    }
    case 'check':
      return el('input', { type: 'checkbox', checked: Boolean(now), onchange: (e) => write(e.target.checked || f.empty) });
    default: {
      const box = el('input', {
        type: 'text', placeholder: f.placeholder, value: now ?? '', autocomplete: 'off', spellcheck: 'false', list: f.list,
        oninput: () => write(box.value.trim() || f.empty),
      });
      return box;
    }
  }
}

// fields makes one for each of list: {at: path in object, label, kind: text | number | choice | lines | check, hint, placeholder, options of a
// choice, min, max, step of a number, empty: what stands for no value, undefined to leave it out}.
export function fields(object, list, changed) {
  return list.map((f) => {
    const box = input(object, f, changed);
    if (f.kind !== 'check') {
      return field(f.label, box, f.hint);
    }
    const hint = f.hint ? el('small', { id: unique('hint') }, f.hint) : null;
    set(box, { 'aria-describedby': hint?.id });
    return el('div', { class: 'field check' }, el('label', {}, box, ' ', f.label), hint);
  });
}

// jsonEditor is a text of all of value(); write(value) is called with what it is changed to while that is JSON.
export function jsonEditor(label, value, write) {
  const box = el('textarea', { rows: 24, spellcheck: 'false', class: 'code' });
  const wrong = el('p', { class: 'wrong', role: 'status' });
  box.value = JSON.stringify(value(), null, 2);
  box.addEventListener('input', () => {
    let read;
    try {
      read = JSON.parse(box.value);
    } catch (err) {
      wrong.textContent = err.message;
      return;
    }
    const object = read !== null && typeof read === 'object' && !Array.isArray(read);
    wrong.textContent = object ? '' : 'It must be an object: { ... }';
    if (object) {
      write(read);
    }
  });
  return el('div', {}, field(label, box), wrong);
}

// tabs is a row of buttons of which one is pressed; choose(name) is called with the first and then with each that is.
export function tabs(label, list, choose) {
  const buttons = list.map(([name, text]) => el('button', { type: 'button', onclick: () => press(name) }, text));
  const press = (name) => {
    list.forEach(([other], i) => set(buttons[i], { 'aria-pressed': String(other === name) }));
    choose(name);
  };
  press(list[0][0]);
  return el('div', { class: 'tabs', role: 'group', 'aria-label': label }, buttons);
}

// confirm asks in a dialog whether to do what the button says. It resolves to true or false.
export function confirm(title, body, action) {
  return new Promise((done) => {
    const id = unique('dialog');
    const dialog = el('dialog', { 'aria-labelledby': id },
      el('form', { method: 'dialog' },
        el('h2', { id }, title), body,
        el('div', { class: 'buttons' },
          el('button', { class: 'primary danger', value: 'ok' }, action),
          el('button', { value: 'cancel', autofocus: true }, 'Cancel'))));
    dialog.addEventListener('close', () => {
      dialog.remove();
      done(dialog.returnValue === 'ok');
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
