import assert from 'node:assert/strict';
import { VoyageAIClient, VoyageAIError } from 'voyageai';
import {
  base64, client, dataURI, dimension, fails, floats, imageVector, long, model, names, same, sameImages, sameTexts, textVector,
  texts, tokens,
} from './harness.mjs';

client({ name: 'voyageai', package: 'voyageai', contract: 'Voyage' }, async ({ url, check }) => {
  const voyage = new VoyageAIClient({ environment: `${url}/v1`, apiKey: 'none' });
  const vectors = (answer) => {
    assert.deepEqual(
      answer.data.map((d) => [d.object, d.index]),
      answer.data.map((_, i) => ['embedding', i]),
    );
    return answer.data.map((d) => d.embedding);
  };
  const text = (t) => ({ content: [{ type: 'text', text: t }] });
  const photo = (n) => ({ content: [{ type: 'image_base64', imageBase64: dataURI(n) }] });
  const refused = async (f, status, says) => {
    const err = await fails(f);
    assert.ok(err instanceof VoyageAIError, `${err.constructor.name}: ${err.message}`);
    assert.equal(err.statusCode, status, err.message);
    assert.match(err.body.detail, says);
  };
  await check('multimodalEmbed, texts', async () => {
    const answer = await voyage.multimodalEmbed({ model, inputs: texts.map(text), inputType: 'document' });
    await sameTexts(vectors(answer));
    assert.equal(answer.usage.totalTokens, await tokens(texts));
    assert.equal(typeof answer.model, 'string');
  });
  await check('multimodalEmbed, images', async () =>
    sameImages(vectors(await voyage.multimodalEmbed({ model, inputs: names.map(photo) }))),
  );
  await check('multimodalEmbed, an image by data URI in image_url', async () => {
    same(
      vectors(
        await voyage.multimodalEmbed({ model, inputs: [{ content: [{ type: 'image_url', imageUrl: dataURI(names[0]) }] }] }),
      )[0],
      await imageVector(names[0]),
    );
  });
  await check('multimodalEmbed, an image without data URI', async () => {
    same(
      vectors(
        await voyage.multimodalEmbed({ model, inputs: [{ content: [{ type: 'image_base64', imageBase64: base64(names[0]) }] }] }),
      )[0],
      await imageVector(names[0]),
    );
  });
  await check('multimodalEmbed, texts and images keep their order', async () => {
    const v = vectors(await voyage.multimodalEmbed({ model, inputs: [photo(names[0]), text(texts[0]), photo(names[1])] }));
    same(v[0], await imageVector(names[0]));
    same(v[1], await textVector(texts[0]));
    same(v[2], await imageVector(names[1]));
  });
  await check('multimodalEmbed, base64', async () =>
    sameTexts(vectors(await voyage.multimodalEmbed({ model, inputs: texts.map(text), encodingFormat: 'base64' })).map(floats)),
  );
  await check('a long text is cut', async () =>
    assert.equal(vectors(await voyage.multimodalEmbed({ model, inputs: [text(long)], truncation: true }))[0].length, dimension),
  );
  await check('a long text without truncation', () =>
    refused(() => voyage.multimodalEmbed({ model, inputs: [text(long)], truncation: false }), 400, /token|long/),
  );
  await check('another model', () =>
    refused(() => voyage.multimodalEmbed({ model: 'voyage-multimodal-3', inputs: [text('x')] }), 404, /voyage-multimodal-3/),
  );
  await check('an image by remote address', () => {
    return refused(
      () => voyage.multimodalEmbed({ model, inputs: [{ content: [{ type: 'image_url', imageUrl: 'http://192.0.2.1/a.jpg' }] }] }),
      400,
      /fetch\.allow|192\.0\.2\.1/,
    );
  });
  await check('embed', async () => sameTexts(vectors(await voyage.embed({ model, input: texts, inputType: 'document' }))));
  await check('embed, base64', async () =>
    sameTexts(vectors(await voyage.embed({ model, input: texts, encodingFormat: 'base64' })).map(floats)),
  );
});
