// The view of the fleet: its nodes, the queues of its broker, jobs, dead letters and cameras, as this service sees them.
import { json, report } from './api.js';
import { columns, el, fill, notice } from './dom.js';
import { repeat, whileVisible } from './life.js';

const every = 1000;

// size is a number of bytes in words.
const size = (n) => (n < 1e3 ? `${n} B` : n < 1e6 ? `${(n / 1e3).toFixed(1)} kB` : n < 1e9 ? `${(n / 1e6).toFixed(1)} MB` : `${(n / 1e9).toFixed(1)} GB`);

const count = (n) => n.toLocaleString('en');

// span is a time in words, such as 3 min.
export const span = (s) => (s < 60 ? `${s.toFixed(s < 10 ? 1 : 0)} s` : s < 3600 ? `${Math.round(s / 60)} min` : `${Math.floor(s / 3600)} h ${Math.round((s % 3600) / 60)} min`);

// state is how a node is, in a pill.
const state = (node) => (node.twice ? ['unhealthy', 'name taken twice'] : node.alive ? [node.health, node.health] : ['unhealthy', 'silent']);

const pill = ([kind, text]) => el('span', { class: `pill ${kind}` }, text);

// table is a card with a title, names of columns ('>' before those of numbers) and rows of cells; null without rows.
function table(title, names, rows) {
  if (!rows.length) {
    return null;
  }
  const number = (i) => names[i].startsWith('>');
  const plain = names.map((name) => name.replace('>', ''));
  return el('section', {}, el('h2', {}, title), el('div', { class: 'card flush' }, el('table', { class: 'wide' }, columns(plain, number),
    el('tbody', {}, rows.map(([first, ...others]) => el('tr', {}, el('th', { scope: 'row' }, first),
      others.map((cell, i) => el('td', { class: number(i + 1) ? 'number' : null, 'data-name': plain[i + 1] }, cell))))))));
}

// told is what a status says, in elements.
export function told(status) {
  const broker = status.broker ?? {};
  const nodes = (status.nodes ?? []).map((n) => [
    n.self ? `${n.node} (this one)` : n.node, pill(state(n)), n.rate ? `${n.rate.toFixed(0)}/s` : '–', count(n.queued), count(n.in_flight), n.model, n.version,
    n.site ?? '–', span(n.seen_seconds),
  ]);
  const queues = (status.queues ?? []).map((q) => [
    q.stream, count(q.pending), count(q.ack_pending), count(q.messages), q.limit_bytes > 0 ? `${size(q.bytes)} of ${size(q.limit_bytes)}` : size(q.bytes),
  ]);
  const jobs = (status.jobs ?? []).map((j) => [
    j.job, pill([j.state === 'running' || j.state === 'done' ? 'healthy' : 'degraded', j.state]), el('div', {},
      j.all && j.found ? el('progress', { max: j.found, value: j.done, 'aria-label': `Done of ${j.job}` }) : null, ` ${count(j.done)} of ${count(j.found)}${j.all ? '' : '+'}`),
    count(j.failed), count(j.dead), `${j.rate.toFixed(0)}/s`, j.left_seconds ? span(j.left_seconds) : '–', j.source ?? '–',
  ]);
  const dead = (status.dead_letters ?? []).map((d) => [d.key, d.job, d.reason, count(d.tries), d.node, new Date(d.time).toLocaleString()]);
  const cameras = (status.cameras ?? []).map((c) => [c.name, c.owner ?? pill(['unhealthy', 'none can']), (c.unreachable_at ?? []).join(', ') || '–']);
  const { spill, worker, share } = status;
  const failed = Object.values(spill?.failed ?? {}).reduce((a, b) => a + b, 0);
  const here = [
    spill && ['Requests', `${count(spill.sent)} answered by others, ${count(spill.taken)} of others answered, ${count(failed)} tries failed`],
    worker && ['Indexes', `${count(worker.encoded)} images encoded, ${count(worker.failed)} bad, ${count(worker.duplicates)} twice`],
    share && ['Shared', `${count(share.text_hits)} texts from others, ${count(share.sets_taken)} prompt sets taken, ${count(share.sets_given)} given`],
  ].filter(Boolean);
  return [
    broker.connected
      ? el('p', { class: 'hint' }, `Broker ${broker.url} · nats-server ${broker.version} · ${broker.tls ? 'encrypted' : 'not encrypted'} · ${broker.rtt_ms.toFixed(1)} ms`)
      : notice('warn', `The broker ${broker.url ?? ''} is not reached${broker.last_error ? `: ${broker.last_error}` : ''}. This service serves as if alone, and tries again by itself.`),
    (status.faults ?? []).filter(() => broker.connected).map((fault) => notice('warn', fault)),
    table('Nodes', ['Node', 'State', '>Rate', '>Queued', '>In flight', 'Model', 'Version', 'Site', '>Seen'], nodes),
    table('Queues', ['Queue', '>Pending', '>With workers', '>Kept', '>Size'], queues),
    table('Jobs', ['Job', 'State', 'Done', '>Failed', '>Dead', '>Rate', '>Left', 'Source'], jobs),
    table('Dead letters', ['Image', 'Job', 'Reason', '>Tries', 'Node', 'When'], dead),
    table('Cameras', ['Camera', 'Node', 'Unreachable at'], cameras),
    table('This node since its start', ['What', 'How many'], here),
  ];
}

export function open(root, rest, signal) {
  const problem = el('div');
  const body = el('div');
  fill(root, el('div', { class: 'title' }, el('h1', {}, 'Fleet')), problem, body);
  let before = '';
  whileVisible(signal, (visible) => repeat(every, visible, async () => {
    try {
      const { data } = await json('/v1/fleet', { signal: visible });
      report(problem);
      const now = JSON.stringify(data);
      if (now !== before) {
        before = now;
        fill(body, data.enabled ? told(data) : el('p', { class: 'hint' }, 'This service is in no fleet: fleet.url in its configuration is empty.'));
      }
    } catch (err) {
      report(problem, err);
    }
  }));
}
