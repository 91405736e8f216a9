// The camera of this device.

// noCamera says why there can be none here; '' where there can.
export function noCamera() {
  if (!isSecureContext || !navigator.mediaDevices?.getUserMedia) {
    return isSecureContext ? 'This browser gives pages no camera.'
      : 'Browsers give a page the camera only over https:// or at http://localhost. Open this page in one of these ways, for instance through "ssh -L 5000:localhost:5000".';
  }
  return '';
}

// openCamera asks for the camera, on phones the one at the back. It returns {video, width, height, stop()}, with a video that
// plays and can be drawn; ended is called when the camera is taken away. The error's text is for people.
export async function openCamera(ended) {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: false, video: { facingMode: { ideal: 'environment' }, width: { ideal: 1280 } } });
  } catch (err) {
    throw new Error({
      NotAllowedError: 'The camera was not allowed. The permission can be given again in the address bar.',
      NotFoundError: 'There is no camera.',
      NotReadableError: 'The camera is used by another program.',
    }[err.name] ?? `The camera cannot be opened: ${err.message}`);
  }
  const video = document.createElement('video');
  Object.assign(video, { muted: true, playsInline: true, srcObject: stream });
  const stop = () => {
    for (const track of stream.getTracks()) {
      track.stop();
    }
    video.srcObject = null;
  };
  for (const track of stream.getTracks()) {
    track.addEventListener('ended', ended);
  }
  try {
    await video.play();
  } catch (err) {
    stop();
    throw new Error(`The camera shows nothing: ${err.message}`);
  }
  return { video, stop, get width() { return video.videoWidth; }, get height() { return video.videoHeight; } };
}

const side = 640; // pixels of the longer side of a frame that is sent: the model sees a third of that

// frame takes a JPEG of what a camera shows now.
export async function frame(camera) {
  const scale = Math.min(1, side / Math.max(camera.width, camera.height));
  const canvas = new OffscreenCanvas(Math.round(camera.width * scale), Math.round(camera.height * scale));
  canvas.getContext('2d').drawImage(camera.video, 0, 0, canvas.width, canvas.height);
  return canvas.convertToBlob({ type: 'image/jpeg', quality: 0.9 });
}
