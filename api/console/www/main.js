// The frame of the page: views by the part of the address behind #, the state of the service, notices.
//
// A view is {name, title, start(root), show(rest), hide()}: start is called once, before it is first shown, with the element to
// fill; show each time it is shown, with what is behind its name in the address (#sets/door: "door"); hide when it is not
// shown any more, and must end what goes on by itself.
import { el, fill, set, tell } from './dom.js';
import { lazy } from './life.js';
import { check, config, onStatus, warning } from './status.js';
import { view as classify } from './classify.js';

const views = [
  classify, lazy('sets', 'Prompt sets', () => import('./sets.js')), lazy('streams', 'Streams', () => import('./streams.js')),
  lazy('state', 'State', () => import('./state.js')),
];

const main = document.getElementById('main');
const shown = { view: null };
const links = new Map();
const roots = new Map();

const nav = document.getElementById('nav');

function offer(view) {
  links.set(view, el('a', { href: `#${view.name}`, 'aria-current': view === shown.view ? 'page' : null }, view.title));
  fill(nav, [...links.values()]);
}
views.forEach(offer);

function route() {
  const hash = location.hash.slice(1);
  const slash = hash.indexOf('/');
  const name = slash < 0 ? hash : hash.slice(0, slash);
  const view = views.find((v) => v.name === name) ?? views[0];
  if (shown.view !== view) {
    shown.view?.hide?.();
    shown.view = view;
    if (!roots.has(view)) {
      roots.set(view, el('div', { class: `view view-${view.name}` }));
      view.start(roots.get(view));
    }
    fill(main, roots.get(view));
    document.title = `${view.title} · hailo-clip`;
    for (const [other, link] of links) {
      set(link, { 'aria-current': other === view ? 'page' : null });
    }
  }
  let rest = slash < 0 ? '' : hash.slice(slash + 1);
  try {
    rest = decodeURIComponent(rest);
  } catch { /* as it is */ }
  view.show?.(rest);
}

const pill = document.getElementById('health');
const about = document.getElementById('about');
const notices = document.getElementById('notices');

onStatus((health) => {
  const status = health?.status ?? 'unreachable';
  pill.className = `pill ${status}`;
  tell(pill, health ? [status, health.model, health.backend].filter(Boolean).join(' · ') : 'no answer');
  if (health?.version) {
    tell(about, `hailo-clip ${health.version}`);
  }
  const told = [];
  if (!health) {
    told.push(['bad', 'The service does not answer. What is shown is from before; the page asks again by itself.']);
  } else if (health.reason) {
    told.push([status === 'unhealthy' ? 'bad' : 'warn', `The service is ${status}: ${health.reason}`]);
  }
  if (warning === 'simulated-vectors') {
    told.push(['warn', 'The chip is simulated and its vectors are made of the bytes that are sent: scores mean nothing.']);
  } else if (warning) {
    told.push(['warn', warning]);
  }
  if (health?.model === 'demo') {
    told.push(['info', 'This is the small demo model: it knows drawings of everyday things, not photographs.']);
  }
  const key = JSON.stringify(told);
  if (notices.dataset.told !== key) { // so that they are said once
    notices.dataset.told = key;
    fill(notices, told.map(([kind, text]) => el('p', { class: `notice ${kind}`, role: kind === 'info' ? null : 'alert' }, text)));
  }
});

document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});

// A file that is dropped beside what takes files would otherwise be shown instead of this page.
for (const kind of ['dragover', 'drop']) {
  addEventListener(kind, (event) => event.preventDefault());
}

addEventListener('hashchange', route);
route();
check();

// The view of the fleet, where there is one. An answer that does not come says nothing: the other views tell of it.
config().then(({ fleet }) => {
  if (fleet) {
    const view = lazy('fleet', 'Fleet', () => import('./fleet.js'));
    views.push(view);
    offer(view);
    if (location.hash.slice(1) === view.name) {
      route();
    }
  }
}, () => {});
