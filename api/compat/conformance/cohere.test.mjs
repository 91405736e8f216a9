import assert from 'node:assert/strict';
import { CohereClient, CohereClientV2, Cohere } from 'cohere-ai';
import {
  client, dataURI, dimension, fails, floats, imageVector, long, model, names, same, sameImages, sameTexts, textVector, texts,
  tokens,
} from './harness.mjs';

// An error of the client must be of its class for the status, with the service's sentence.
async function refused(f, type, says) {
  const err = await fails(f);
  assert.ok(err instanceof type, `${err.constructor.name}: ${err.message}`);
  assert.equal(typeof err.body.message, 'string', JSON.stringify(err.body));
  assert.match(err.body.message, says);
}

client({ name: 'cohere-ai, v1', package: 'cohere-ai', contract: 'Cohere v1' }, async ({ url, check }) => {
  const cohere = new CohereClient({ environment: url, token: 'none' });
  await check('texts', async () => {
    const answer = await cohere.embed({ model, texts, inputType: 'search_document' });
    assert.deepEqual([answer.responseType, typeof answer.id, answer.texts], ['embeddings_floats', 'string', texts]);
    await sameTexts(answer.embeddings);
  });
  await check('by type', async () => {
    const answer = await cohere.embed({ model, texts, inputType: 'search_query', embeddingTypes: ['float'] });
    assert.equal(answer.responseType, 'embeddings_by_type');
    await sameTexts(answer.embeddings.float);
  });
  await check('images', async () =>
    sameImages(
      (await cohere.embed({ model, images: names.map(dataURI), inputType: 'image', embeddingTypes: ['float'] })).embeddings.float,
    ),
  );
  await check('another model', () =>
    refused(() => cohere.embed({ model: 'embed-v4.0', texts }), Cohere.NotFoundError, /embed-v4.0/),
  );
  await check('nothing to embed', () => refused(() => cohere.embed({ model }), Cohere.BadRequestError, /texts/));
});

client({ name: 'cohere-ai, v2', package: 'cohere-ai', contract: 'Cohere v2' }, async ({ url, check }) => {
  const cohere = new CohereClientV2({ environment: url, token: 'none' });
  const embed = (more) => cohere.embed({ model, inputType: 'search_document', embeddingTypes: ['float'], ...more });
  await check('texts', async () => {
    const answer = await embed({ texts });
    await sameTexts(answer.embeddings.float);
    assert.deepEqual(
      [answer.responseType, typeof answer.id, answer.texts, answer.meta.apiVersion.version],
      ['embeddings_by_type', 'string', texts, '2'],
    );
    assert.equal(answer.meta.billedUnits.inputTokens, await tokens(texts));
  });
  await check('no embeddingTypes means float', async () =>
    sameTexts((await embed({ texts, embeddingTypes: undefined })).embeddings.float),
  );
  await check('base64', async () =>
    sameTexts((await embed({ texts, embeddingTypes: ['base64', 'float'] })).embeddings.base64.map(floats)),
  );
  await check('images', async () => {
    const answer = await embed({ images: names.map(dataURI), inputType: 'image' });
    await sameImages(answer.embeddings.float);
    assert.equal(answer.images?.length, names.length);
    for (const i of answer.images) {
      assert.ok(i.width > 0 && i.height > 0 && i.format === 'jpeg' && i.bitDepth > 0, JSON.stringify(i));
    }
  });
  await check('inputs of texts and images', async () => {
    const v = (
      await embed({
        inputs: [
          { content: [{ type: 'text', text: texts[0] }] },
          { content: [{ type: 'image_url', imageUrl: { url: dataURI(names[0]) } }] },
        ],
      })
    ).embeddings.float;
    assert.equal(v.length, 2);
    same(v[0], await textVector(texts[0]));
    same(v[1], await imageVector(names[0]));
  });
  await check('outputDimension of the model', async () =>
    sameTexts((await embed({ texts, outputDimension: dimension })).embeddings.float),
  );
  await check('a long text is cut', async () =>
    assert.equal((await embed({ texts: [long], truncate: 'END' })).embeddings.float[0].length, dimension),
  );
  await check('a long text with truncate NONE', () =>
    refused(() => embed({ texts: [long], truncate: 'NONE' }), Cohere.BadRequestError, /token|long/),
  );
  await check('another outputDimension', () =>
    refused(() => embed({ texts, outputDimension: 256 }), Cohere.BadRequestError, /output_dimension/),
  );
  await check('a type that is not made', () =>
    refused(() => embed({ texts, embeddingTypes: ['binary'] }), Cohere.BadRequestError, /binary|embedding_types/),
  );
  await check('another model', () => refused(() => embed({ model: 'embed-v4.0', texts }), Cohere.NotFoundError, /embed-v4.0/));
  await check('an image that is none', () =>
    refused(() => embed({ images: ['data:image/png;base64,AAAA'], inputType: 'image' }), Cohere.BadRequestError, /image/),
  );
});
