// What runs on while a view is open, and when it ends. A signal is that of an AbortController: of a view it ends when the view is left.
import { alert, ApiError } from './api.js';
import { fill } from './dom.js';

// lazy is a view whose module is loaded when it is first shown, and whose content is made anew each time it is: load() resolves to {open}, and
// open(root, rest, signal) fills root; signal ends when the view is left.
export function lazy(name, title, load) {
  let root;
  let life = null;
  const hide = () => {
    life?.abort();
    life = null;
  };
  return {
    name, title, hide,
    start(element) { root = element; },
    show(rest) {
      hide();
      const { signal } = (life = new AbortController());
      load().then(({ open }) => signal.aborted || open(fill(root), rest, signal),
        () => signal.aborted || fill(root, alert(new ApiError('A part of this page could not be loaded from the service.'), () => location.reload())));
    },
  };
}

// whileVisible calls start(signal) whenever the page can be seen, until signal ends. The signal that start gets ends with it, and
// when the page is hidden: so cameras, sockets and polls stop.
export function whileVisible(signal, start) {
  let shown = null;
  const look = () => {
    const wanted = !document.hidden && !signal.aborted;
    if (shown && !wanted) {
      shown.abort();
      shown = null;
    } else if (!shown && wanted) {
      shown = new AbortController();
      start(shown.signal);
    }
  };
  document.addEventListener('visibilitychange', look, { signal });
  signal.addEventListener('abort', look, { once: true });
  look();
}

// pause resolves after so many milliseconds, or when signal ends.
export function pause(ms, signal) {
  return new Promise((done) => {
    const over = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', over);
      done();
    };
    const timer = setTimeout(over, ms);
    signal.addEventListener('abort', over);
    if (signal.aborted) over();
  });
}

// repeat awaits work(signal) at once and again ms after each end, until signal ends. work does not throw.
export async function repeat(ms, signal, work) {
  while (!signal.aborted) {
    await work(signal);
    await pause(ms, signal);
  }
}

// within is a signal that ends with parent, and end() ends it before.
export function within(parent) {
  const own = new AbortController();
  const end = () => {
    parent.removeEventListener('abort', end);
    own.abort();
  };
  parent.addEventListener('abort', end);
  if (parent.aborted) end();
  return { signal: own.signal, end };
}
