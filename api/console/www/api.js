// Requests to the service, and what can go wrong with them.
import { el, field } from './dom.js';
import { forTab } from './store.js';

const keyName = 'hailo-clip.key';

// ApiError is why a request has no answer. code is that of the service, or 'unreachable'.
export class ApiError extends Error {
  constructor(message, { status = 0, code = 'unreachable', requestId = '', retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { name: 'ApiError', status, code, requestId, retryAfter });
  }
}

// aborted says that an error is nobody's fault: the page itself has given the request up.
export const aborted = (err) => err?.name === 'AbortError';

// key is the one that the person has typed in: kept while the tab is open, sent to this service alone.
export const key = () => forTab.get(keyName);

// request is fetch with the key, which is asked for when the service wants one, unless quiet. Other answers than good ones are
// thrown as an ApiError.
export async function request(path, { headers = {}, quiet = false, ...options } = {}) {
  for (;;) {
    const used = key();
    const authorization = used ? { Authorization: `Bearer ${used}` } : {};
    let response;
    try {
      response = await fetch(path, { cache: 'no-store', ...options, headers: { ...headers, ...authorization } });
    } catch (err) {
      if (aborted(err)) {
        throw err;
      }
      throw new ApiError('The service does not answer. Is it running, and is the network up?');
    }
    if (response.ok) {
      return response;
    }
    const err = await failure(response);
    if (err.status !== 401 || key() === used && (quiet || !await askKey(used && err.message))) {
      throw err;
    }
    options.signal?.throwIfAborted();
  }
}

// socket opens a WebSocket of the service. A browser can send the key only as the name of a protocol.
export function socket(path) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  return new WebSocket(url, key() ? ['hailo-clip', `key.${key()}`] : []);
}

// json asks and answers with {data, requestId, timing, warning, roundTrip}: the JSON, the header Server-Timing as a list of
// {name, ms}, that of X-Clip-Warning, and the milliseconds from the call to the last byte. body may be an object, which is sent as JSON.
export async function json(path, { body, headers = {}, ...options } = {}) {
  const plain = body !== undefined && (Array.isArray(body) || Object.getPrototypeOf(body) === Object.prototype);
  if (plain) {
    headers = { 'Content-Type': 'application/json', ...headers };
    body = JSON.stringify(body);
  }
  const start = performance.now();
  const response = await request(path, { body, headers, ...options });
  const text = await response.text();
  const roundTrip = performance.now() - start;
  let data = null;
  try {
    data = text === '' ? null : JSON.parse(text);
  } catch {
    throw new ApiError("The answer is not JSON, and not the service's own: something between may have made it.", { status: response.status, code: 'no_json' });
  }
  return {
    data,
    etag: response.headers.get('ETag') ?? '',
    requestId: response.headers.get('X-Request-Id') ?? '',
    warning: response.headers.get('X-Clip-Warning') ?? '',
    timing: serverTiming(response.headers.get('Server-Timing') ?? ''),
    roundTrip,
  };
}

async function failure(response) {
  let told = {};
  try {
    told = await response.json() ?? {};
  } catch { /* a proxy in between has answered */ }
  return new ApiError(told.error ?? `The answer is ${response.status} ${response.statusText}, and not the service's own: something between may have made it.`, {
    status: response.status,
    code: told.code ?? `http_${response.status}`,
    requestId: told.request_id ?? response.headers.get('X-Request-Id') ?? '',
    retryAfter: Number(response.headers.get('Retry-After')) || 0,
  });
}

function serverTiming(header) {
  return header.split(',').map((one) => {
    const [name, ...parameters] = one.trim().split(';');
    const dur = parameters.find((p) => p.trim().startsWith('dur='));
    return { name, ms: dur ? Number(dur.split('=')[1]) : 0 };
  }).filter((t) => t.name);
}

let asking; // all requests that are refused at a time wait for one answer

// askKey asks for a key; why is what was wrong with the one before, if there was one. It returns whether one was given.
function askKey(why) {
  asking ??= new Promise((resolve) => {
    const input = el('input', { type: 'password', autocomplete: 'off', spellcheck: 'false', required: true });
    const dialog = el('dialog', { 'aria-labelledby': 'key-title' },
      el('form', { method: 'dialog' },
        el('h2', { id: 'key-title' }, 'This service wants a key'),
        why ? el('p', { role: 'alert' }, why) : null,
        field('Key', input, 'It is kept until this tab is closed, and sent to this service alone.'),
        el('div', { class: 'buttons' },
          el('button', { class: 'primary', value: 'ok' }, 'Use it'),
          el('button', { value: 'cancel', formnovalidate: true }, 'Cancel'))));
    dialog.addEventListener('close', () => {
      const given = dialog.returnValue === 'ok' && input.value.trim() !== '';
      if (given) {
        forTab.set(keyName, input.value.trim());
      }
      dialog.remove();
      asking = undefined;
      resolve(given);
    });
    document.body.append(dialog);
    dialog.showModal();
    input.focus();
  });
  return asking;
}

// advice says what to do about an error, beside what the service itself says.
function advice(err) {
  switch (err.status) {
    case 0: return 'What is shown is from before. The page asks again by itself.';
    case 401: return 'It answers those who have a key: ask who runs it for one.';
    case 413: return 'Send a smaller image: the limits are server.max_body_bytes and clip.max_pixels of the configuration.';
    case 415: return 'JPEG, PNG, WebP, GIF, BMP and TIFF are read.';
    case 429: return `More is asked of the service than it can do.${err.retryAfter ? ` It wants to be asked again in ${err.retryAfter} s.` : ''}`;
    case 503: return 'See the state at the top of the page, and "hailo-clip doctor" on the machine.';
    case 504: return 'The service is busy, or the image takes long.';
  }
  return '';
}

// alert shows an error: the sentence of the service, what to do, and the id under which the service's log has it.
export function alert(err, again) {
  const title = { 0: 'No answer', 401: 'A key is needed', 403: 'Not allowed', 413: 'Too large', 415: 'Not a kind of image that is read', 429: 'Too busy', 503: 'Not available', 504: 'Too late' }[err.status]
    ?? (err.code === 'invalid_image' ? 'Not an image that can be read' : 'That did not work');
  return el('div', { class: 'alert', role: 'alert' },
    el('strong', {}, title),
    el('p', {}, err.status === 401 ? null : `${err.message.replace(/([^.?!])$/, '$1.')} `, advice(err)),
    el('p', { class: 'soft' }, el('code', {}, err.code), err.requestId ? [' · request ', el('code', {}, err.requestId)] : null),
    again ? el('button', { onclick: again }, 'Try again') : null);
}

// report shows in element what went wrong, unless it shows just that already or the page has given up itself; without an error it is emptied.
export function report(element, err) {
  const told = err ? `${err.status} ${err.message}` : '';
  if (!aborted(err) && element.dataset.told !== told) {
    element.dataset.told = told;
    element.replaceChildren(...(err ? [alert(err)] : []));
  }
}
