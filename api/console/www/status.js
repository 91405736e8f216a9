// How the service is, asked every few seconds while somebody looks.
import { json, ApiError } from './api.js';

const every = 10_000;
const listeners = new Set();
let timer = 0;

// health is the last answer of /health, also where that was "unhealthy"; null before the first one and while there is none.
export let health = null;

// warning is what the service says with each answer of what it is worth; ''.
export let warning = '';

// onStatus has f called with each answer of /health, null when there is none. It returns how to end that.
export function onStatus(f) {
  listeners.add(f);
  return () => listeners.delete(f);
}

// check asks now, and from then on again and again.
export async function check() {
  clearTimeout(timer);
  try {
    // Unhealthy is 503 with the same body, so this is not api.json, which throws.
    const response = await fetch('/health', { cache: 'no-store' });
    health = await response.json();
    warning = response.headers.get('X-Clip-Warning') ?? '';
    if (!health.status) {
      health = { status: 'unhealthy', reason: health.error };
    }
  } catch {
    health = null;
  }
  for (const f of listeners) {
    f(health);
  }
  clearTimeout(timer);
  if (!document.hidden) {
    timer = setTimeout(check, every);
  }
}

document.addEventListener('visibilitychange', () => {
  if (!document.hidden) {
    check();
  }
});

let asked;

// config is what the service tells this page of itself: {image_size, fit, max_tokens, samples}.
export function config() {
  asked ??= json('/console/config.json', { cache: 'no-cache' }).then((answer) => answer.data, (err) => {
    asked = undefined; // and it is asked for again the next time
    throw err instanceof ApiError ? err : new ApiError(String(err));
  });
  return asked;
}
