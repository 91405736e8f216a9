// Runs real clients of other systems against a service with the demo model and prints one table: `make conformance`.
//
//   node run.mjs PROGRAM ROOT [PART OF A NAME OR CONTRACT]...
//
// PROGRAM is hailo-clip, ROOT the root of the sources; the folder of this file has node_modules, see package.json. Named
// parts choose among the clients; "go" names those in Go. The exit code is not 0 when a client is red.
import { readdir } from 'node:fs/promises';
import { here, run, table } from './harness.mjs';
import { goLines } from './go.mjs';

process.env.NO_PROXY = '127.0.0.1';
for (const name of (await readdir(here)).filter((n) => n.endsWith('.test.mjs')).sort()) {
  await import(`./${name}`);
}
await run();
await goLines();
process.exit(table() ? 1 : 0);
