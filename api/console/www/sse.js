// Server-sent events by fetch, so that the header with the key goes along, which EventSource cannot send.

import { pause } from './life.js';

// messages yields {id, kind, data} of a body of text/event-stream, data as it is.
export async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let message = { id: '', kind: 'message', data: [] };
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      const lines = rest.split('\n');
      rest = lines.pop();
      for (const line of lines) {
        if (line === '') {
          if (message.data.length) yield { ...message, data: message.data.join('\n') };
          message = { id: '', kind: 'message', data: [] };
          continue;
        }
        const colon = line.indexOf(':');
        const [field, text] = colon < 0 ? [line, ''] : [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, '')];
        if (field === 'id') message.id = text;
        else if (field === 'event') message.kind = text;
        else if (field === 'data') message.data.push(text);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// listen calls hear({id, kind, data}) with the messages that open(last) answers with, data parsed from JSON, and opens again, after last, the id
// that was heard last, when the connection ends: after 1, 2, 4, ... 15 seconds. It ends with signal, or where asking again is of no
// use: the stream is gone, or may not be asked for. state(text) is told what goes on: '' while it is connected.
export async function listen(open, { signal, last = '', hear, state }) {
  for (let wait = 1; !signal.aborted; wait = Math.min(2 * wait, 15)) {
    let why = 'The connection has ended';
    try {
      const answer = await open(last);
      state('');
      for await (const m of messages(answer.body)) {
        if (signal.aborted) return;
        wait = 1;
        const data = JSON.parse(m.data);
        if (m.kind === 'end') {
          why = data.error;
          if (data.code === 'stream_not_found') return state(why);
          break;
        }
        last = m.id || last;
        hear({ ...m, data });
      }
    } catch (e) {
      if (signal.aborted) return;
      why = e.message;
      if ([400, 401, 403, 404].includes(e.status)) return state(why);
    }
    if (signal.aborted) return;
    state(`${why}. Again in ${wait} s`);
    await pause(wait * 1000, signal);
  }
}
