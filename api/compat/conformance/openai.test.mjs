import assert from 'node:assert/strict';
import OpenAI from 'openai';
import {
  aliases, client, counting, dataURI, dimension, fails, floats, imageVector, lockedService, long, model, names, same, sameImages,
  sameTexts, textVector, texts, tokens,
} from './harness.mjs';

// Vectors of an answer, whose items must have their place as index.
const vectors = (answer) => {
  assert.equal(answer.object, 'list');
  assert.deepEqual(
    answer.data.map((d) => [d.object, d.index]),
    answer.data.map((_, i) => ['embedding', i]),
  );
  return answer.data.map((d) => d.embedding);
};

client({ name: 'openai', package: 'openai', contract: 'OpenAI' }, async ({ url, check }) => {
  const open = (more = {}) => new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', ...more });
  const create = (body, options) => open().embeddings.create({ model, ...body }, options);
  const refused = async (body, type, status, param) => {
    const fetch = counting();
    const err = await fails(() => open({ fetch }).embeddings.create({ model, ...body }));
    assert.ok(err instanceof type, `${err.constructor.name}: ${err.message}`);
    assert.equal(err.status, status);
    assert.equal(fetch.calls, 1, 'it has asked again');
    assert.equal(typeof err.error.message, 'string');
    assert.equal(typeof err.type, 'string');
    assert.ok(err.code === null || typeof err.code === 'string', `code ${err.code}`);
    if (param) {
      assert.ok(
        `${err.param} ${err.message}`.includes(param),
        `${param} is named neither in ${err.param} nor in: ${err.message}`,
      );
    }
    assert.match(err.requestID ?? '', /./, 'no x-request-id');
    return err;
  };

  await check('texts, as base64 by default', async () => sameTexts(vectors(await create({ input: texts }))));
  await check('one text', async () => same(vectors(await create({ input: texts[0] }))[0], await textVector(texts[0])));
  await check('encoding_format float', async () => sameTexts(vectors(await create({ input: texts, encoding_format: 'float' }))));
  await check('base64 is the float32 of float', async () => {
    const [coded, plain] = [
      await create({ input: texts, encoding_format: 'base64' }),
      await create({ input: texts, encoding_format: 'float' }),
    ];
    for (const [i, v] of vectors(coded).entries()) {
      assert.deepEqual(floats(v), [...new Float32Array(vectors(plain)[i])]);
    }
  });
  await check('images by data URI', async () => sameImages(vectors(await create({ input: names.map(dataURI) }))));
  await check('an image beside texts keeps its place', async () => {
    const v = vectors(await create({ input: [texts[0], dataURI(names[0]), texts[1]] }));
    same(v[0], await textVector(texts[0]));
    same(v[1], await imageVector(names[0]));
    same(v[2], await textVector(texts[1]));
  });
  await check('2,048 texts in one request', async () => {
    const many = Array.from({ length: 2048 }, (_, i) => texts[i % texts.length]);
    await sameTexts(vectors(await create({ input: many })), many);
  });
  await check('dimensions of the model', async () =>
    same(vectors(await create({ input: texts[0], dimensions: dimension }))[0], await textVector(texts[0])),
  );
  await check('usage counts tokens', async () => {
    const { usage, model: named } = await create({ input: texts });
    const sum = await tokens(texts);
    assert.deepEqual([usage.prompt_tokens, usage.total_tokens], [sum, sum]);
    assert.equal(typeof named, 'string');
    assert.equal((await create({ input: dataURI(names[0]) })).usage.prompt_tokens, 0);
  });
  await check('a long text is cut, and a header says so', async () => {
    const { data, response } = await create({ input: [long, texts[0]] }).withResponse();
    assert.equal(vectors(data).length, 2);
    assert.equal(response.headers.get('x-clip-truncated'), '1');
  });
  await check('every alias', async () => {
    for (const name of aliases) {
      same(vectors(await create({ model: name, input: texts[0] }))[0], await textVector(texts[0]));
    }
  });
  await check('models.list', async () => {
    const list = [];
    for await (const m of open().models.list()) {
      list.push(m);
    }
    assert.ok(list.length > 0);
    for (const m of list) {
      assert.deepEqual([m.object, typeof m.id, typeof m.created, typeof m.owned_by], ['model', 'string', 'number', 'string']);
    }
  });
  await check('models.retrieve', async () => {
    for (const name of ['demo', ...aliases]) {
      assert.equal((await open().models.retrieve(name)).object, 'model', name);
    }
    const err = await fails(() => open().models.retrieve('gpt-4'));
    assert.ok(err instanceof OpenAI.NotFoundError, err.message);
  });
  await check('another model: NotFoundError', async () => {
    assert.equal(
      (await refused({ model: 'text-embedding-3-large', input: 'x' }, OpenAI.NotFoundError, 404)).code,
      'model_not_found',
    );
  });
  for (const [what, body, param] of [
    ['no input', {}, 'input'],
    ['an empty list', { input: [] }, 'input'],
    ['token numbers', { input: [1, 2, 3] }, 'check_embedding_ctx_length'],
    ['lists of token numbers', { input: [[1, 2], [3]] }, 'check_embedding_ctx_length'],
    ['an empty text', { input: ['a', ''] }, 'input'],
    ['other dimensions', { input: 'x', dimensions: 256 }, 'dimensions'],
    ['an unknown encoding', { input: 'x', encoding_format: 'octal' }, 'encoding_format'],
    ['an image that is none', { input: ['data:image/jpeg;base64,AAAA'] }, 'input'],
    ['2,049 texts', { input: Array(2049).fill('x') }, 'input'],
  ]) {
    await check(`${what}: BadRequestError, once`, () => refused(body, OpenAI.BadRequestError, 400, param));
  }
  await check('with keys: AuthenticationError without one, an answer with one', async () => {
    const { stop, url: locked, key } = await lockedService();
    try {
      const err = await fails(() => open({ baseURL: `${locked}/v1`, apiKey: 'wrong' }).embeddings.create({ model, input: 'x' }));
      assert.ok(err instanceof OpenAI.AuthenticationError, err.message);
      assert.equal(err.code, 'invalid_api_key');
      await sameTexts(vectors(await open({ baseURL: `${locked}/v1`, apiKey: key }).embeddings.create({ model, input: texts })));
    } finally {
      await stop();
    }
  });
});
