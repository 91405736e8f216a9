// Send frames to hailo-clip over a WebSocket, and print what it says to each.
//
//     node frames.mjs http://127.0.0.1:5000 door *.jpg
//
// Node.js 22 has WebSocket; 20 with --experimental-websocket. In a browser the same works, with the frames of a <canvas>
// (canvas.toBlob(blob => socket.send(blob), "image/jpeg")), if the page comes from an origin of server.allowed_origins.
import { readFile } from "node:fs/promises";

const [url, promptSet, ...files] = process.argv.slice(2);
if (files.length === 0) {
  console.error("usage: node frames.mjs URL PROMPT_SET FILE...");
  process.exit(2);
}

const socket = new WebSocket(url.replace(/^http/, "ws") + "/v1/stream");

// The first message says what is done with the frames. With policy "queue" each is answered; with "latest", which is right for a
// camera, newer ones take the place of those that wait, and that is the answer then.
socket.onopen = async () => {
  socket.send(JSON.stringify({ prompt_set: promptSet, policy: "queue", top_k: 1, events: { min_frames: 1 } }));
  for (const file of files) {
    socket.send(await readFile(file)); // any image, as it is
  }
  socket.send(""); // no more frames: the service answers those that it has, and closes
};

// One message for each frame, in order, and one for each change.
socket.onmessage = ({ data }) => {
  const said = JSON.parse(data);
  if (said.event === "enter" || said.event === "exit") {
    console.log(`${said.event} ${said.label}`);
  } else if (said.classifications) {
    console.log(`${files[said.seq]}: ${said.classifications[0]?.text} (${Math.round(said.lag_ms)} ms)`);
  } else if (said.dropped) {
    console.log(`${files[said.seq]}: ${said.dropped} ${said.error ?? ""}`);
  } else if (said.error) {
    console.error(said.error);
  }
};

socket.onerror = () => console.error("no connection");
socket.onclose = ({ code, reason }) => {
  if (code !== 1000) {
    console.error(`closed with ${code} ${reason}`);
  }
  process.exitCode = code === 1000 ? 0 : 1;
};
