// Frames of a camera, a video or an image of the browser, sent over the WebSocket of a stream, and the answers to them.

import { noCamera, openCamera } from './camera.js';
import { isImage } from './files.js';
import { pause } from './life.js';
import { openVideo } from './video.js';

const side = 640; // of the frames that are sent, at most
const most = 4; // frames that are not answered; with as many no frame is taken

// openSource opens what frames are taken from, 'webcam' or the File of an image or a video: {draw, width, height, stop()}, of which draw is what drawImage
// takes. ended(sentence) is called when it is taken away. The error's text is for people.
export async function openSource(from, ended) {
  if (from === 'webcam') {
    const why = noCamera();
    if (why) {
      throw new Error(why);
    }
    const camera = await openCamera(() => ended('The camera was taken away.'));
    return { draw: camera.video, width: camera.width, height: camera.height, stop: camera.stop };
  }
  if (!isImage(from)) {
    return openVideo(from, ended);
  }
  try {
    const image = await createImageBitmap(from);
    return { draw: image, width: image.width, height: image.height, stop: () => image.close() };
  } catch {
    throw new Error(`The browser cannot show ${from.name}.`);
  }
}

// Feed sends frames until its signal ends. open() returns the WebSocket, definition is its first message, source is of openSource. Of on,
// answer(a, ms) gets what became of a frame, and after how long here; event(e) those of the stream; refused(sentence) what the service
// does not do; frame(canvas) each frame that is taken; end(sentence) comes once, '' when the signal was what ended it.
export class Feed {
  #socket;
  #sent = new Map(); // when, by sequence number
  #canvas = document.createElement('canvas');
  #next = 0;

  skipped = 0; // frames not taken, because too many were not answered
  sent = 0;

  constructor({ open, definition, source, fps, signal, on }) {
    Object.assign(this, { source, fps, signal, on });
    const scale = Math.min(1, side / Math.max(source.width, source.height));
    this.#canvas.width = Math.max(1, Math.round(source.width * scale));
    this.#canvas.height = Math.max(1, Math.round(source.height * scale));
    let why = '';
    const socket = (this.#socket = open());
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => {
      this.#tell(definition);
      this.#run();
    };
    socket.onmessage = ({ data }) => {
      if (signal.aborted) return;
      const m = JSON.parse(data);
      if (m.event) return on.event(m);
      if (m.seq === undefined) {
        if (m.error) on.refused((why = m.error));
        return;
      }
      const ms = performance.now() - this.#sent.get(m.seq);
      this.#sent.delete(m.seq);
      on.answer(m, ms);
    };
    socket.onclose = ({ code }) => {
      const reason = code === 1001 ? 'The service is stopping' : why || 'The connection was lost';
      this.#socket = null;
      on.end(signal.aborted ? '' : reason);
    };
    signal.addEventListener('abort', () => socket.close(1000), { once: true });
  }

  get width() { return this.#canvas.width; }
  get height() { return this.#canvas.height; }

  #tell(definition) { this.#socket.send(JSON.stringify({ ...definition, frame_header: true })); }

  // change has the frames from now on treated otherwise, field by field, for as long as the connection lasts.
  change(definition) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#tell(definition);
  }

  async #run() {
    const g = this.#canvas.getContext('2d');
    let due = performance.now();
    while (this.#socket && !this.signal.aborted) {
      due = Math.max(due + 1000 / this.fps, performance.now());
      g.drawImage(this.source.draw, 0, 0, this.#canvas.width, this.#canvas.height);
      this.on.frame(this.#canvas);
      if (this.#sent.size < most) await this.#send();
      else this.skipped++;
      await pause(due - performance.now(), this.signal);
    }
  }

  async #send() {
    const blob = await new Promise((done) => this.#canvas.toBlob(done, 'image/jpeg', 0.85));
    if (!blob) return;
    const head = new DataView(new ArrayBuffer(16));
    head.setBigUint64(0, BigInt(this.#next), true);
    head.setBigInt64(8, BigInt(Date.now()) * 1000n, true);
    const message = await new Blob([head, blob]).arrayBuffer();
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#sent.set(this.#next++, performance.now());
    this.sent++;
    this.#socket.send(message);
  }
}
