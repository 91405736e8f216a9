// Runs every NAME.test.mjs beside it, see harness.mjs.
import { readdir } from 'node:fs/promises';
import { here, run } from './harness.mjs';

for (const name of (await readdir(here)).filter((n) => n.endsWith('.test.mjs')).sort()) {
  await import(`./${name}`);
}
process.exitCode = (await run()) ? 1 : 0;
