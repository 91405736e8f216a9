// A client made by openapi-typescript, as it is, asks a service: node client.js URL FOLDER, which has cat.jpg.
import { readFile } from 'node:fs/promises';
import createClient from 'openapi-fetch';
import type { components, paths } from './api.js';

const [url, folder] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: url });

function must<T>(value: T | undefined, what: string, error?: unknown): T {
  if (value === undefined) throw new Error(`${what}: ${JSON.stringify(error)}`);
  return value;
}
function expect(ok: boolean, what: string): void {
  if (!ok) throw new Error(what);
}

const health = await client.GET('/health');
const backend: 'npu' | 'cpu' | 'sim' = must(health.data, 'health').backend;
expect(backend === 'cpu', `backend ${backend}`);

// The least that a request needs.
const image = (await readFile(`${folder}/cat.jpg`)).toString('base64');
const found = await client.POST('/v1/classify', { body: { image, prompts: ['a photo of a dog', 'a photo of a cat'] } });
const best: components['schemas']['Match'] = must(found.data, 'classify', found.error).classifications[0]!;
expect(best.text === 'a photo of a cat' && best.rank === 1, JSON.stringify(best));

const wrong = await client.POST('/v1/classify', { body: { image } });
expect(wrong.error?.code === 'invalid_prompts', JSON.stringify(wrong.error));

const text = await client.POST('/v1/embed/text', { body: { text: 'a cat' }, params: { query: { encoding: 'f16', timings: true } } });
const embedding = must(text.data, 'embed text', text.error);
expect(typeof embedding.embedding === 'string' && (embedding.timings?.answer ?? -1) >= 0, JSON.stringify(embedding));

const batch = await client.POST('/v1/classify/batch', { body: { images: [image, 'no'], prompts: ['a cat'] } });
const [good, bad] = must(batch.data, 'batch', batch.error).results;
expect(!!good && 'classifications' in good && !!bad && 'error' in bad && bad.code === 'invalid_image', JSON.stringify(batch.data));

const params = { path: { name: 'client-ts' } };
const set = await client.PUT('/v1/prompt-sets/{name}', { params, body: { labels: [{ name: 'cat' }, { name: 'dog' }] } });
expect(must(set.data, 'put', set.error).state === 'ready', JSON.stringify(set.data));
const again = await client.PUT('/v1/prompt-sets/{name}', { params, body: must(set.data, 'put') }); // what is got can be put
expect(again.response.status === 200, JSON.stringify(again.error));
expect((await client.DELETE('/v1/prompt-sets/{name}', { params })).response.status === 204, 'delete');

const stats = must((await client.GET('/v1/stats')).data, 'stats');
const passed: number = stats.stages[0]!.passed;
expect(passed > 0, `${passed} images`);
console.log('the client in TypeScript works');
