// A request of this page as commands and programs that ask the same. A request is {path, file, fields}: a form for POST, with
// the name of the file in its part "image", and [name, value] of its other parts. The key is never in it, only where to put it.

// keyVariable is the variable of the environment that the copied texts take the key from.
const keyVariable = 'HAILO_CLIP_KEY';

// shell quotes a word for a POSIX shell.
const shell = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

// whole replaces what is no character by itself, which a browser does not send either.
const whole = (text) => text.toWellFormed?.() ?? text;

// literal is a text in JavaScript, and in Python, whose escapes are these and more.
const literal = (text) => JSON.stringify(whole(text));

// curlFile is the name of a file as curl -F reads it.
const curlFile = (name) => {
  const path = name.startsWith('-') ? `./${name}` : name;
  return /^[\w./ -]+$/.test(path) ? path : `"${path.replace(/[\\"]/g, '\\$&')}"`;
};

function curl({ path, file, fields }, base, withKey) {
  const lines = [`curl -sS ${shell(base + path)}`];
  if (withKey) {
    lines.push(`-H "Authorization: Bearer $${keyVariable}"`);
  }
  lines.push(`-F ${shell(`image=@${curlFile(file)}`)}`);
  for (const [name, value] of fields) {
    lines.push(`--form-string ${shell(`${name}=${whole(value)}`)}`);
  }
  return lines.join(' \\\n  ');
}

function python({ path, file, fields }, base, withKey) {
  return `${withKey ? 'import os\n' : ''}import requests

answer = requests.post(
    ${literal(base + path)},${withKey ? `\n    headers={"Authorization": "Bearer " + os.environ["${keyVariable}"]},` : ''}
    files={"image": open(${literal(file)}, "rb")},
    data=[
${fields.map(([name, value]) => `        (${literal(name)}, ${literal(value)}),\n`).join('')}    ],
)
print(answer.json())`;
}

function javascript({ path, file, fields }, base, withKey) {
  return `import { readFile } from 'node:fs/promises'; // in a page: form.append('image', input.files[0])

const form = new FormData();
form.append('image', new Blob([await readFile(${literal(file)})]), ${literal(file)});
${fields.map(([name, value]) => `form.append(${literal(name)}, ${literal(value)});\n`).join('')}const answer = await fetch(${literal(base + path)}, {
  method: 'POST',${withKey ? `\n  headers: { Authorization: 'Bearer ' + process.env.${keyVariable} },` : ''}
  body: form,
});
console.log(await answer.json());`;
}

// languages are the functions by name; each takes a request, where the service is, and whether it wants a key.
export const languages = { curl, Python: python, JavaScript: javascript };

// copy puts text on the clipboard. Only secure pages have the one for programs; the others have the one for commands.
export async function copy(text) {
  if (navigator.clipboard && isSecureContext) {
    return navigator.clipboard.writeText(text);
  }
  const area = document.createElement('textarea');
  area.value = text;
  area.className = 'hidden';
  document.body.append(area);
  area.select();
  const copied = document.execCommand('copy');
  area.remove();
  if (!copied) {
    throw new Error('The browser has not copied it: select the text and copy it by hand.');
  }
}
