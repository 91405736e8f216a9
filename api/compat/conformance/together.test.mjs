import assert from 'node:assert/strict';
import { CohereClientV2 } from 'cohere-ai';
import { Ollama } from 'ollama';
import OpenAI from 'openai';
import { VoyageAIClient } from 'voyageai';
import { base64, client, dataURI, image, model, post, sameImages, sameTexts } from './harness.mjs';

const things = ['airplane', 'automobile', 'bicycle', 'cat', 'dog', 'elephant', 'guitar', 'pizza', 'strawberry'];
const files = things.map((thing) => `${thing}.jpg`);
const sentences = things.flatMap((thing) => ['a photo of', 'no', 'two of'].map((start) => `${start} ${thing}`));
const some = (list, n) => Array.from({ length: n }, () => list[Math.floor(Math.random() * list.length)]);

// No caller may see anything of another's.
client({ name: '16 callers, six dialects at once', version: '', contract: 'all' }, async ({ url, check }) => {
  const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none' });
  const ollama = new Ollama({ host: url });
  const cohere = new CohereClientV2({ environment: url, token: 'none' });
  const voyage = new VoyageAIClient({ environment: `${url}/v1`, apiKey: 'none' });
  const embed = async (input) => (await openai.embeddings.create({ model, input })).data.map((d) => d.embedding);
  const calls = [
    async (t) => sameTexts(await embed(t), t),
    async (_, i) => sameImages(await embed(i.map(dataURI)), i),
    async (t) => sameTexts((await ollama.embed({ model, input: t })).embeddings, t),
    async (t) => {
      const answer = await cohere.embed({ model, texts: t, inputType: 'search_query', embeddingTypes: ['float'] });
      await sameTexts(answer.embeddings.float, t);
    },
    async (_, i) => {
      const inputs = i.map((name) => ({ content: [{ type: 'image_base64', imageBase64: dataURI(name) }] }));
      await sameImages((await voyage.multimodalEmbed({ model, inputs })).data.map((d) => d.embedding), i);
    },
    async (t, i) => {
      const { body } = await post('/vectorize', { texts: t, images: i.map(base64) });
      await sameTexts(body.textVectors, t);
      await sameImages(body.imageVectors, i);
    },
    async ([text], [name]) => {
      for (const [task, field, value] of [['visual', 'image', new Blob([image(name)])], ['textual', 'text', text]]) {
        const form = new FormData();
        form.append('entries', JSON.stringify({ clip: { [task]: { modelName: 'ViT-B-32__openai' } } }));
        form.append(field, value);
        const { status, body } = await post('/predict', form);
        assert.equal(status, 200, JSON.stringify(body));
        const vectors = [JSON.parse(body.clip)];
        await (task === 'visual' ? sameImages(vectors, [name]) : sameTexts(vectors, [text]));
      }
    },
  ];
  await check('320 requests: each has its own vectors', async () => {
    const caller = async () => {
      for (const call of some(calls, 20)) {
        await call(some(sentences, 1 + Math.floor(Math.random() * 8)), some(files, 1 + Math.floor(Math.random() * 4)));
      }
    };
    await Promise.all(Array.from({ length: 16 }, caller));
  });
});
