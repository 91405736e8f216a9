import assert from 'node:assert/strict';
import { JinaEmbeddings } from '@langchain/community/embeddings/jina';
import { OllamaEmbeddings } from '@langchain/ollama';
import { OpenAIEmbeddings } from '@langchain/openai';
import {
  base64, client, counting, dimension, fails, long, model, names, same, sameImages, sameTexts, textVector, texts,
} from './harness.mjs';

client({ name: '@langchain/openai', package: '@langchain/openai', contract: 'OpenAI' }, async ({ url, check }) => {
  const open = (more = {}, fetch) =>
    new OpenAIEmbeddings({
      model: 'text-embedding-3-small',
      apiKey: 'none',
      configuration: { baseURL: `${url}/v1`, fetch },
      ...more,
    });
  await check('embedQuery', async () => same(await open().embedQuery(texts[0]), await textVector(texts[0])));
  await check('embedDocuments, 1,100 in batches of 512', async () => {
    const many = Array.from({ length: 1100 }, (_, i) => texts[i % texts.length]);
    const fetch = counting();
    await sameTexts(await open({}, fetch).embedDocuments(many), many);
    assert.equal(fetch.calls, 3);
  });
  await check('newlines become spaces', async () =>
    same((await open().embedDocuments(['a photo\nof a cat']))[0], await textVector('a photo of a cat')),
  );
  await check('a long text', async () => assert.equal((await open().embedDocuments([long]))[0].length, dimension));
  await check('dimensions', async () =>
    same(await open({ dimensions: dimension }).embedQuery(texts[0]), await textVector(texts[0])),
  );
  await check('another model: an error, at once', async () => {
    const fetch = counting();
    const err = await fails(() => open({ model: 'text-embedding-ada-002' }, fetch).embedQuery('x'));
    assert.match(err.message, /text-embedding-ada-002/);
    assert.equal(fetch.calls, 1);
  });
});

client(
  { name: '@langchain/community JinaEmbeddings', package: '@langchain/community', contract: 'Jina' },
  async ({ url, check }) => {
    // Its constructor leaves out baseUrl.
    const open = (more = {}) =>
      Object.assign(new JinaEmbeddings({ model: 'jina-clip-v1', apiKey: 'none', dimensions: dimension, ...more }), {
        baseUrl: `${url}/v1/embeddings`,
      });
    await check('embedQuery', async () => same(await open().embedQuery(texts[0]), await textVector(texts[0])));
    await check('embedDocuments, in batches of 24', async () => {
      const many = Array.from({ length: 60 }, (_, i) => texts[i % texts.length]);
      await sameTexts(await open().embedDocuments(many), many);
    });
    await check('images', async () => sameImages(await open().embedDocuments(names.map((n) => ({ image: base64(n) })))));
    await check('an image and a text', async () => {
      const v = await open().embedDocuments([{ image: base64(names[0]) }, { text: texts[0] }]);
      await sameImages(v.slice(0, 1), names.slice(0, 1));
      await sameTexts(v.slice(1), texts.slice(0, 1));
    });
    await check('its own 1,024 dimensions are refused by name', async () =>
      assert.match((await fails(() => open({ dimensions: 1024 }).embedQuery('x'))).message, /dimensions/),
    );
  },
);

client({ name: '@langchain/ollama', package: '@langchain/ollama', contract: 'Ollama' }, async ({ url, check }) => {
  const open = (more = {}) => new OllamaEmbeddings({ model, baseUrl: url, maxRetries: 0, ...more });
  await check('embedQuery', async () => same(await open().embedQuery(texts[0]), await textVector(texts[0])));
  await check('embedDocuments', async () => sameTexts(await open().embedDocuments(texts)));
  await check('a long text is refused: the client sends truncate false', async () =>
    assert.match((await fails(() => open().embedQuery(long))).message, /length|token/),
  );
  await check('a long text, truncated', async () =>
    assert.equal((await open({ truncate: true }).embedQuery(long)).length, dimension),
  );
  await check('another model', async () =>
    assert.match(
      (await fails(() => open({ model: 'mxbai-embed-large' }).embedQuery('x'))).message,
      /model 'mxbai-embed-large' not found/,
    ),
  );
});
