// The frames of a video file. The page may not load blob: addresses, so no <video> can play a file: MP4 and MOV are taken apart here, and
// the browser's decoder (WebCodecs) makes images of their samples.
import { pause } from './life.js';

const largest = 64 << 20; // bytes of the index of a file
const ahead = 8; // frames that are decoded before they are shown

const name = (view, at) => String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(at + i)));

// boxes yields the parts of a container between two offsets.
function* boxes(view, from, to) {
  while (from + 8 <= to) {
    const long = view.getUint32(from) === 1;
    const size = long ? Number(view.getBigUint64(from + 8)) : view.getUint32(from) || to - from;
    if (size < 8 || from + size > to) {
      throw new Error('it is cut or damaged');
    }
    yield { type: name(view, from + 4), from: from + (long ? 16 : 8), to: from + size };
    from += size;
  }
}

// inside is the part at a path such as 'mdia.hdlr'; undefined: there is none.
function inside(view, box, path) {
  for (const type of path.split('.')) {
    box = box && [...boxes(view, box.from, box.to)].find((b) => b.type === type);
  }
  return box;
}

// index reads the part of a file that says where its samples are.
async function index(file) {
  for (let at = 0; at + 8 <= file.size;) {
    const head = new DataView(await file.slice(at, at + 16).arrayBuffer());
    const short = head.getUint32(0);
    const size = short === 1 && head.byteLength === 16 ? Number(head.getBigUint64(8)) : short || file.size - at;
    if (name(head, 4) === 'moov' && size <= largest) {
      return new DataView(await file.slice(at, at + size).arrayBuffer());
    }
    if (size < 8) {
      break;
    }
    at += size;
  }
  throw new Error('it is no MP4 or MOV');
}

// decoding says what the decoder must know of the kind of video.
function decoding(view, entry) {
  const kind = name(view, entry + 4);
  const parts = [...boxes(view, entry + 86, entry + view.getUint32(entry))];
  const setup = (type) => parts.find((b) => b.type === type);
  const two = (n) => String(n).padStart(2, '0');
  const byte = (box, i) => view.getUint8(box.from + i);
  const [avc, vp, av1] = ['avcC', 'vpcC', 'av1C'].map(setup);
  if (avc) {
    const hex = [1, 2, 3].map((i) => byte(avc, i).toString(16).padStart(2, '0')).join('');
    return { codec: `${kind}.${hex}`, description: new Uint8Array(view.buffer, avc.from, avc.to - avc.from) };
  }
  if (vp) {
    return { codec: `vp09.${two(byte(vp, 4))}.${two(byte(vp, 5))}.${two(byte(vp, 6) >> 4)}` };
  }
  if (av1) {
    return { codec: `av01.${byte(av1, 1) >> 5}.${two(byte(av1, 1) & 31)}${byte(av1, 2) & 128 ? 'H' : 'M'}.${byte(av1, 2) & 64 ? '10' : '08'}` };
  }
  throw new Error(`its video is ${kind}, which is not read here`);
}

// samplesOf lists the samples of a track in the order in which they are decoded: {at, size, time in microseconds, key}.
function samplesOf(view, table, scale) {
  const full = (type) => inside(view, table, type);
  const u32 = (box, i) => view.getUint32(box.from + 4 * i);
  const [stsz, stsc, stts, ctts, stss] = ['stsz', 'stsc', 'stts', 'ctts', 'stss'].map(full);
  const [stco, co64] = ['stco', 'co64'].map(full);
  const runs = function* (box) { // each value as often as it says
    for (let i = 0; box && i < u32(box, 1); i++) {
      for (let n = u32(box, 2 + 2 * i); n > 0; n--) {
        yield view.getInt32(box.from + 4 * (3 + 2 * i));
      }
    }
  };
  const keys = stss && new Set(Array.from({ length: u32(stss, 1) }, (_, i) => u32(stss, 2 + i)));
  const [lasts, offsets] = [runs(stts), runs(ctts)];
  const count = Math.min(u32(stsz, 2), 1 << 22); // days of video; more is a file that lies
  const list = [];
  let time = 0;
  for (let chunk = 0, entry = 0; chunk < u32(stco ?? co64, 1) && list.length < count; chunk++) {
    let at = stco ? u32(stco, 2 + chunk) : Number(view.getBigUint64(co64.from + 8 + 8 * chunk));
    while (entry + 1 < u32(stsc, 1) && u32(stsc, 2 + 3 * (entry + 1)) <= chunk + 1) {
      entry++;
    }
    for (let n = u32(stsc, 3 + 3 * entry); n > 0 && list.length < count; n--) {
      const size = u32(stsz, 1) || u32(stsz, 3 + list.length);
      const shown = time + (offsets.next().value ?? 0);
      list.push({ at, size, time: Math.round((1e6 * shown) / scale), key: !keys || keys.has(list.length + 1) });
      at += size;
      time += lasts.next().value ?? 0;
    }
  }
  return list;
}

// trackOf is the first video of a file: {config, samples, width, height, turned: quarters clockwise}.
function trackOf(view) {
  const moov = { from: 8, to: view.byteLength };
  for (const trak of boxes(view, moov.from, moov.to)) {
    const hdlr = trak.type === 'trak' && inside(view, trak, 'mdia.hdlr');
    if (!hdlr || name(view, hdlr.from + 8) !== 'vide') {
      continue;
    }
    const [mdhd, tkhd, table] = ['mdia.mdhd', 'tkhd', 'mdia.minf.stbl'].map((path) => inside(view, trak, path));
    const entry = inside(view, table, 'stsd').from + 8;
    const matrix = tkhd.from + (view.getUint8(tkhd.from) ? 52 : 40);
    const [a, b] = [view.getInt32(matrix), view.getInt32(matrix + 4)];
    const samples = samplesOf(view, table, view.getUint32(mdhd.from + (view.getUint8(mdhd.from) ? 20 : 12)));
    if (!samples.length) {
      throw new Error('it has no index of its frames (it is fragmented)');
    }
    return { config: decoding(view, entry), samples, width: view.getUint16(entry + 32), height: view.getUint16(entry + 34), turned: b > 0 ? 1 : a < 0 ? 2 : b < 0 ? 3 : 0 };
  }
  throw new Error('there is no video in it');
}

// openVideo plays a file again and again at its own speed onto a canvas: {draw, width, height, stop()}. failed(sentence) is called when it cannot go on.
export async function openVideo(file, failed) {
  if (!window.VideoDecoder) {
    throw new Error('This browser gives pages no decoder of video, or only over https:// or at http://localhost. "hailo-clip watch" reads video files.');
  }
  let track;
  try {
    track = trackOf(await index(file));
    if (!(await VideoDecoder.isConfigSupported(track.config)).supported) {
      throw new Error(`this browser does not decode ${track.config.codec}`);
    }
  } catch (err) {
    throw new Error(`${file.name} cannot be played: ${err instanceof RangeError ? 'it is cut or damaged' : err.message}. "hailo-clip watch" reads other videos.`);
  }
  const sideways = track.turned % 2 === 1;
  const canvas = new OffscreenCanvas(sideways ? track.height : track.width, sideways ? track.width : track.height);
  const life = new AbortController();
  (async () => {
    while (!life.signal.aborted) {
      await once(file, track, canvas, life.signal);
    }
  })().catch((err) => failed(`${file.name} cannot be played on: ${err.message}`));
  return { draw: canvas, width: canvas.width, height: canvas.height, stop: () => life.abort() };
}

// once plays a file from its beginning to its end.
async function once(file, { config, samples, width, height, turned }, canvas, signal) {
  const g = canvas.getContext('2d');
  const ready = [];
  let [fault, next, over] = [null, 0, false];
  const decoder = new VideoDecoder({ output: (frame) => ready.push(frame), error: (err) => { fault = err; } });
  try {
    decoder.configure(config);
    const start = performance.now();
    const first = Math.min(...samples.slice(0, 32).map((s) => s.time));
    while (!signal.aborted && !fault && !(over && !ready.length)) {
      if (next < samples.length && decoder.decodeQueueSize + ready.length < ahead) {
        const { at, size, time, key } = samples[next++];
        const data = await file.slice(at, at + size).arrayBuffer();
        decoder.decode(new EncodedVideoChunk({ type: key ? 'key' : 'delta', timestamp: time, data }));
        if (next === samples.length) {
          decoder.flush().then(() => { over = true; }, (err) => { fault = err; });
        }
        continue;
      }
      const frame = ready.shift();
      if (!frame) {
        await pause(4, signal);
        continue;
      }
      await pause((frame.timestamp - first) / 1000 - (performance.now() - start), signal);
      g.setTransform(1, 0, 0, 1, canvas.width / 2, canvas.height / 2);
      g.rotate((turned * Math.PI) / 2);
      g.drawImage(frame, -width / 2, -height / 2, width, height);
      frame.close();
    }
  } finally {
    ready.forEach((frame) => frame.close());
    if (decoder.state !== 'closed') {
      decoder.close();
    }
  }
  if (fault && !signal.aborted) {
    throw fault;
  }
}
