// Files that are dragged or chosen, and images as they are shown: drawn, because the page may not load data: or blob: addresses.
import { el, set } from './dom.js';

// dropTarget has files that are dragged onto an element taken by take(data), the DataTransfer; shown is what is marked meanwhile.
export function dropTarget(element, take, shown = element) {
  const over = (on) => shown.classList.toggle('over', on);
  const files = (e) => e.dataTransfer?.types.includes('Files');
  for (const kind of ['dragenter', 'dragover']) {
    element.addEventListener(kind, (e) => {
      if (files(e)) {
        e.preventDefault();
        e.stopPropagation();
        over(true);
      }
    });
  }
  element.addEventListener('dragleave', (e) => {
    if (!element.contains(e.relatedTarget)) {
      over(false);
    }
  });
  element.addEventListener('drop', (e) => {
    if (files(e)) {
      e.preventDefault();
      e.stopPropagation();
      over(false);
      take(e.dataTransfer);
    }
  });
}

// fileButton is a button that lets files be chosen, and calls take(files). attributes are those of the input.
export function fileButton(text, attributes, take, name = text) {
  const box = el('input', {
    type: 'file', class: 'hidden', tabindex: '-1', 'aria-label': name, ...attributes,
    onchange: () => {
      take([...box.files]);
      box.value = ''; // so that the same file can be chosen again
    },
  });
  return el('span', { class: 'file' }, el('button', { type: 'button', onclick: () => box.click(), 'aria-label': name }, text), box);
}

// download gives the person a file.
export function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  const link = el('a', { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

// imageCanvas shows an image that is in a Blob, or a promise of one. Without an image it stays as it is.
export function imageCanvas(blob, name) {
  const canvas = el('canvas', { role: 'img', 'aria-label': name, width: 96, height: 96, class: 'thumb' });
  Promise.resolve(blob).then(createImageBitmap).then((image) => {
    canvas.width = image.width;
    canvas.height = image.height;
    canvas.getContext('2d').drawImage(image, 0, 0);
    canvas.dataset.shown = 'true';
    image.close();
  }).catch(() => set(canvas, { 'data-broken': true }));
  return canvas;
}

// fromBase64 is the Blob of an image in base64.
export const fromBase64 = (text) => new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))]);

// toBase64 is the base64 of a Blob.
export async function toBase64(blob) {
  const all = new Uint8Array(await blob.arrayBuffer());
  let text = '';
  for (let i = 0; i < all.length; i += 0x8000) {
    text += String.fromCharCode(...all.subarray(i, i + 0x8000));
  }
  return btoa(text);
}

// isImage says that a file is one, as far as its type or name tells.
export const isImage = (file) => file.type.startsWith('image/') || /\.(jpe?g|png|webp|gif|bmp|tiff?)$/i.test(file.name);
