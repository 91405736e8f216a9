// Where the time of a request went.
import { el, fill, millis, tell } from './dom.js';

const words = {
  read: 'reading the body', text: 'vectors of the prompts', queue: 'waiting to enter', decode: 'decoding the image', resize: 'resizing it', encode: 'encoding it', score: 'comparing',
  answer: 'writing the answer', other: 'all that took less than a hundredth',
};

// kind is the class of a stage's part of the bar.
function kind(name) {
  const stage = name.replace(/-wait$/, '');
  return `${stage in words ? stage : 'other'}${stage !== name || name === 'queue' ? ' wait' : ''}`;
}

// timingPanel is a bar of the stages, in the order in which the request went through them; pale is waiting.
export function timingPanel() {
  const bar = el('div', { class: 'timing', 'aria-hidden': 'true' }), legend = el('ul', { class: 'legend' }), total = el('span', { class: 'soft' });
  return {
    element: el('section', { class: 'card later' }, el('div', { class: 'head' }, el('h2', {}, 'Time'), total), bar, legend),
    // show takes the list of {name, ms} of the header Server-Timing, and what the browser has measured.
    show(timing, roundTrip) {
      const sum = timing.reduce((all, t) => all + t.ms, 0);
      tell(total, timing.length ? `${millis(sum)} in the service, ${millis(roundTrip)} with the way there and back` : `${millis(roundTrip)} there and back`);
      const worth = timing.filter(({ ms }) => ms >= sum / 100), rest = sum - worth.reduce((all, t) => all + t.ms, 0);
      if (rest > 0) {
        worth.push({ name: 'other', ms: rest });
      }
      fill(bar, worth.map(({ name, ms }) => {
        const part = el('i', { class: kind(name), title: `${name}: ${millis(ms)}` });
        part.style.flexGrow = String(ms / sum);
        return part;
      }));
      fill(legend, worth.map(({ name, ms }) => el('li', { title: words[name] ?? 'waiting for that stage' },
        el('i', { class: kind(name) }), name, ' ', el('span', { class: 'soft' }, millis(ms)))));
    },
  };
}
