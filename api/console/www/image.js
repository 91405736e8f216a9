// What the model sees of an image. Sources are what a canvas can draw: an ImageBitmap or a video.

// fitted says which part of an image of w x h is brought into a square of a side: from {x, y, w, h} of the image to {x, y, w, h}
// of the square. fit is clip.fit of the configuration: crop, squash or pad. It rounds as the service does.
export function fitted(fit, w, h, side) {
  const square = { x: 0, y: 0, w: side, h: side };
  if (fit === 'squash') {
    return { from: { x: 0, y: 0, w, h }, to: square };
  }
  const other = (long, short) => Math.floor(side * long / short);
  if (fit === 'pad') {
    const to = w >= h ? { w: side, h: Math.max(other(h, w), 1) } : { w: Math.max(other(w, h), 1), h: side };
    return { from: { x: 0, y: 0, w, h }, to: { ...to, x: Math.floor((side - to.w) / 2), y: Math.floor((side - to.h) / 2) } };
  }
  const whole = w <= h ? { w: side, h: other(h, w) } : { w: other(w, h), h: side }; // what the square is cut from
  const across = w / whole.w, down = h / whole.h;
  return { from: { x: margin(whole.w - side) * across, y: margin(whole.h - side) * down, w: side * across, h: side * down }, to: square };
}

// margin is half of what is cut off, rounded to an even number where it is between two.
const margin = (cut) => (cut % 4 === 1 ? (cut - 1) / 2 : Math.round(cut / 2));

// inWords says the same to a person.
export const inWords = {
  crop: 'The shorter side becomes the side of the square, and what lies outside the middle is not seen (clip.fit: crop).',
  squash: 'The whole image becomes a square, whatever its shape is (clip.fit: squash).',
  pad: 'The longer side becomes the side of the square, and what is free is filled with grey (clip.fit: pad).',
};

// padding is what "pad" fills with: the mean colour of the images that CLIP has learned from.
const padding = 'rgb(123 117 104)';

// drawSeen draws what the model sees.
export function drawSeen(canvas, source, w, h, { fit, image_size: side }) {
  const { from, to } = fitted(fit, w, h, side);
  canvas.width = canvas.height = side;
  const c = canvas.getContext('2d');
  c.fillStyle = padding;
  c.fillRect(0, 0, side, side);
  c.imageSmoothingQuality = 'high';
  c.drawImage(source, from.x, from.y, from.w, from.h, to.x, to.y, to.w, to.h);
}

// transparent says that an image has parts that can be seen through. The service reads the colours that are stored in them, and a browser
// does not tell which they are.
export function transparent(source) {
  const c = new OffscreenCanvas(64, 64).getContext('2d');
  c.drawImage(source, 0, 0, 64, 64);
  return c.getImageData(0, 0, 64, 64).data.some((value, i) => i % 4 === 3 && value < 255);
}

const longest = 1120; // pixels of a side of the canvas, whatever the image has

// drawWhole draws the image, with what the model does not see of it darker.
export function drawWhole(canvas, source, w, h, { fit, image_size: side }) {
  const scale = Math.min(1, longest / Math.max(w, h));
  const width = Math.max(1, Math.round(w * scale)), height = Math.max(1, Math.round(h * scale));
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const c = canvas.getContext('2d');
  c.clearRect(0, 0, width, height);
  c.imageSmoothingQuality = 'high';
  c.drawImage(source, 0, 0, width, height);
  const { from } = fitted(fit, w, h, side);
  if (from.w === w && from.h === h) {
    return;
  }
  const x = from.x * scale, y = from.y * scale, s = Math.min(from.w, from.h) * scale;
  c.fillStyle = 'rgb(0 0 0 / 0.5)';
  c.fillRect(0, 0, width, y);
  c.fillRect(0, y + s, width, height - y - s);
  c.fillRect(0, y, x, s);
  c.fillRect(x + s, y, width - x - s, s);
  const line = Math.max(1.5, width / 320);
  c.lineWidth = line;
  c.strokeStyle = 'rgb(255 255 255 / 0.9)';
  c.strokeRect(x + line / 2, y + line / 2, s - line, s - line);
}
