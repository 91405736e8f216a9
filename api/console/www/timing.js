// Where the time of a request went.
import { el, fill, millis } from './dom.js';

const words = {
  read: 'reading the body', text: 'vectors of the prompts', queue: 'waiting to enter', decode: 'decoding the image', resize: 'resizing it', encode: 'encoding it', score: 'comparing',
  answer: 'writing the answer',
};

// timingPanel is a bar of the stages, in the order in which the request went through them; pale is waiting.
export function timingPanel() {
  const bar = el('div', { class: 'timing', 'aria-hidden': 'true' }), legend = el('ul', { class: 'legend' }), total = el('span', { class: 'soft' });
  return {
    element: el('section', { class: 'card' }, el('div', { class: 'head' }, el('h2', {}, 'Time'), total), bar, legend),
    // show takes the list of {name, ms} of the header Server-Timing, and what the browser has measured.
    show(timing, roundTrip) {
      const stages = [];
      for (const { name, ms } of timing) {
        const stage = name.replace(/-wait$/, '');
        if (!stages.includes(stage)) {
          stages.push(stage);
        }
      }
      const sum = timing.reduce((all, t) => all + t.ms, 0);
      total.textContent = timing.length ? `${millis(sum)} in the service, ${millis(roundTrip)} to this browser and back` : `${millis(roundTrip)} to the service and back`;
      const kind = (name) => `c${stages.indexOf(name.replace(/-wait$/, '')) % 8}${/-wait$|^queue$/.test(name) ? ' wait' : ''}`;
      fill(bar, timing.map(({ name, ms }) => {
        const part = el('i', { class: kind(name), title: `${name} ${millis(ms)}` });
        part.style.flexGrow = String(ms);
        return part;
      }));
      fill(legend, timing.filter(({ name, ms }) => ms >= 0.01 || name === 'encode').map(({ name, ms }) => el('li', { title: words[name] ?? 'waiting for that stage' },
        el('i', { class: kind(name) }), name, ' ', el('span', { class: 'soft' }, millis(ms)))));
    },
  };
}
