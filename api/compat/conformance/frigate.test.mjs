import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { client, here, model, root } from './harness.mjs';

// Frigate has no client in a registry: frigate.py makes its calls as it makes them.
client({ name: 'Frigate, llama.cpp provider', version: '0.18', contract: 'Frigate' }, async ({ url, check, skip }) => {
  const python = await promisify(execFile)('python3', [path.join(here, 'frigate.py'), `${url}/v1/`, model, root], {
    env: { ...process.env, PATH: `/usr/bin:${process.env.PATH}` },
  }).catch((err) => (err.code === 'ENOENT' ? null : Promise.reject(err)));
  if (!python) {
    return skip('no python3');
  }
  for (const [what, reason] of JSON.parse(python.stdout).results) {
    await check(what, async () => {
      if (reason) {
        throw new Error(reason);
      }
    });
  }
});
