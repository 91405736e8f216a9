import assert from 'node:assert/strict';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { embed, embedMany, APICallError } from 'ai';
import { createJina } from 'jina-ai-provider';
import { createVoyage } from 'voyage-ai-provider';
import {
  client, counting, dataURI, fails, model, names, same, sameImages, sameTexts, textVector, texts, tokens,
} from './harness.mjs';

globalThis.AI_SDK_LOG_WARNINGS = false;

// What every provider of the AI SDK must do with texts and with an error, whose message it must find.
async function texted(check, provider) {
  await check('embed', async () =>
    same((await embed({ model: provider(model), value: texts[0] })).embedding, await textVector(texts[0])),
  );
  await check('embedMany', async () => sameTexts((await embedMany({ model: provider(model), values: texts })).embeddings));
  await check('usage', async () =>
    assert.equal((await embedMany({ model: provider(model), values: texts })).usage.tokens, await tokens(texts)),
  );
  await check('another model: the message, and no second call', async () => {
    const fetch = counting();
    const err = await fails(() => embed({ model: provider('another-model', fetch), value: texts[0] }));
    assert.ok(APICallError.isInstance(err), `${err.name}: ${err.message}`);
    assert.deepEqual([err.statusCode, err.isRetryable, fetch.calls], [404, false, 1]);
    assert.match(err.message, /another-model/);
  });
}

client(
  { name: '@ai-sdk/openai-compatible', package: '@ai-sdk/openai-compatible', contract: 'OpenAI' },
  async ({ url, check }) => {
    const provider = (id, fetch) => createOpenAICompatible({ name: 'clip', baseURL: `${url}/v1`, fetch }).embeddingModel(id);
    await texted(check, provider);
    await check('images by data URI', async () =>
      sameImages((await embedMany({ model: provider(model), values: names.map(dataURI) })).embeddings),
    );
    await check('5,000 values, split by the SDK', async () => {
      const many = Array.from({ length: 5000 }, (_, i) => texts[i % texts.length]);
      await sameTexts((await embedMany({ model: provider(model), values: many })).embeddings, many);
    });
  },
);

client({ name: 'jina-ai-provider', package: 'jina-ai-provider', contract: 'Jina' }, async ({ url, check }) => {
  await texted(check, (id, fetch) => createJina({ baseURL: `${url}/v1`, apiKey: 'none', fetch }).textEmbeddingModel(id));
  await check('images by data URI', async () => {
    await sameImages(
      (
        await embedMany({
          model: createJina({ baseURL: `${url}/v1`, apiKey: 'none' }).multiModalEmbeddingModel(model),
          values: names.map(dataURI),
        })
      ).embeddings,
    );
  });
});

client({ name: 'voyage-ai-provider', package: 'voyage-ai-provider', contract: 'Voyage' }, async ({ url, check }) => {
  const open = (fetch) => createVoyage({ baseURL: `${url}/v1`, apiKey: 'none', fetch });
  await texted(check, (id, fetch) => open(fetch).textEmbeddingModel(id));
  await texted(
    (what, f) => check(`multimodal: ${what}`, f),
    (id, fetch) => open(fetch).multimodalEmbeddingModel(id),
  );
  await check('multimodal: images', async () => {
    const content = names.map((n) => [{ type: 'image_base64', image_base64: dataURI(n) }]);
    await sameImages(
      (
        await embedMany({
          model: open().multimodalEmbeddingModel(model),
          values: names.map(() => ''),
          providerOptions: { voyage: { content } },
        })
      ).embeddings,
    );
  });
});
