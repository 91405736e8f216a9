// Contracts without a client to be had: requests as their documentation and sources have them.
import assert from 'node:assert/strict';
import {
  base64, client, cosine, dataURI, dimension, get, image, imageVector, long, model, names, post, same, sameImages, sameTexts,
  textVector, texts,
} from './harness.mjs';

async function ok(route, body, options) {
  const answer = await post(route, body, options);
  assert.equal(answer.status, 200, `${route}: ${answer.status} ${JSON.stringify(answer.body)}`);
  return answer.body;
}

// Weaviate's container has a smoke test; this does what it does, and compares the vectors.
client({ name: 'multi2vec-clip smoke test', version: '1.38', contract: 'Weaviate' }, async ({ check }) => {
  await check('ready and live: 204', async () => {
    for (const route of ['/.well-known/ready', '/.well-known/live']) {
      const { status, body } = await get(route);
      assert.deepEqual([status, body], [204, '']);
    }
  });
  await check('/meta is an object', async () => {
    const { status, body } = await get('/meta');
    assert.ok(status === 200 && body && typeof body === 'object' && !Array.isArray(body), JSON.stringify(body));
  });
  await check('texts and images', async () => {
    const { textVectors, imageVectors } = await ok('/vectorize', { texts, images: names.map(base64) });
    await sameTexts(textVectors);
    await sameImages(imageVectors);
  });
  await check('texts alone', async () => {
    const { textVectors, imageVectors } = await ok('/vectorize', { texts });
    await sameTexts(textVectors);
    assert.deepEqual(imageVectors, []);
  });
  await check('images alone', async () => {
    const { textVectors, imageVectors } = await ok('/vectorize', { images: names.map(base64) });
    await sameImages(imageVectors);
    assert.deepEqual(textVectors, []);
  });
  await check('a long text is cut', async () =>
    assert.equal((await ok('/vectorize', { texts: [long] })).textVectors[0].length, dimension),
  );
  await check('an error is JSON', async () => {
    const { status, body } = await post('/vectorize', { images: ['AAAA'] });
    assert.ok(status >= 400 && typeof body.error === 'string', `${status} ${JSON.stringify(body)}`);
  });
});

client({ name: 'requests of TEI', version: '1.9.3', contract: 'TEI' }, async ({ check }) => {
  await check('/embed, one and many', async () => {
    await sameTexts(await ok('/embed', { inputs: texts[0] }), texts.slice(0, 1));
    await sameTexts(await ok('/embed', { inputs: texts, truncate: true, normalize: true, truncation_direction: 'Right' }));
  });
  await check('/similarity', async () => {
    const scores = await ok('/similarity', { inputs: { source_sentence: texts[0], sentences: texts } });
    const v = await Promise.all(texts.map(textVector));
    assert.equal(scores.length, texts.length);
    scores.forEach((s, i) => assert.ok(Math.abs(s - cosine(v[0], v[i])) < 1e-4, `${i}: ${s}`));
  });
  await check('/info', async () => {
    const { status, body } = await get('/info');
    assert.equal(status, 200);
    assert.equal(typeof body.model_id, 'string');
    assert.ok(body.max_input_length > 0 && body.max_client_batch_size > 0, JSON.stringify(body));
  });
  await check('errors', async () => {
    for (const bad of [{}, { inputs: [] }, { inputs: [[1, 2]] }, { inputs: 7 }]) {
      const { status, body } = await post('/embed', bad);
      assert.ok(
        status >= 400 && status < 500 && typeof body.error === 'string' && typeof body.error_type === 'string',
        `${JSON.stringify(bad)}: ${status} ${JSON.stringify(body)}`,
      );
    }
  });
  await check('truncate false and a long text', async () => {
    const { status, body } = await post('/embed', { inputs: long, truncate: false });
    assert.ok(status >= 400 && status < 500 && body.error, `${status} ${JSON.stringify(body)}`);
  });
});

client({ name: 'requests of Roboflow inference', version: '1.5.0', contract: 'Roboflow' }, async ({ check }) => {
  const of = (name) => ({ type: 'base64', value: base64(name) });
  await check('/clip/embed_image, one and many', async () => {
    await sameImages(
      (await ok('/clip/embed_image?api_key=none', { clip_version_id: 'ViT-B-32', image: of(names[0]) })).embeddings,
      names.slice(0, 1),
    );
    const answer = await ok('/clip/embed_image', { clip_version_id: 'ViT-B-32', api_key: 'none', image: names.map(of) });
    await sameImages(answer.embeddings);
    assert.equal(typeof answer.time, 'number');
  });
  await check('/clip/embed_text, one and many', async () => {
    await sameTexts(
      (await ok('/clip/embed_text', { clip_version_id: 'ViT-B-32', text: texts[0] })).embeddings,
      texts.slice(0, 1),
    );
    await sameTexts((await ok('/clip/embed_text', { clip_version_id: 'ViT-B-32', text: texts })).embeddings);
  });
  await check('/clip/compare: plain cosines, as list and by name', async () => {
    const want = await Promise.all(texts.map(async (t) => cosine(await imageVector(names[0]), await textVector(t))));
    const ask = { clip_version_id: 'ViT-B-32', subject: of(names[0]), subject_type: 'image', prompt_type: 'text' };
    const list = (await ok('/clip/compare', { ...ask, prompt: texts })).similarity;
    list.forEach((s, i) => assert.ok(Math.abs(s - want[i]) < 1e-4, `${i}: ${s}`));
    const named = (await ok('/clip/compare', { ...ask, prompt: { first: texts[0], second: texts[1] } })).similarity;
    assert.deepEqual(Object.keys(named), ['first', 'second']);
    assert.ok(Math.abs(named.second - want[1]) < 1e-4);
    const one = (
      await ok('/clip/compare', {
        clip_version_id: 'ViT-B-32',
        subject: texts[0],
        subject_type: 'text',
        prompt: of(names[0]),
        prompt_type: 'image',
      })
    ).similarity;
    assert.ok(one.length === 1 && Math.abs(one[0] - want[0]) < 1e-4);
  });
  await check('another version, pickles and remote addresses are refused', async () => {
    for (const more of [
      { clip_version_id: 'ViT-B-16', image: of(names[0]) },
      { clip_version_id: 'ViT-B-32', image: { type: 'numpy', value: 'gASV' } },
      { clip_version_id: 'ViT-B-32', image: { type: 'url', value: 'http://192.0.2.1/a.jpg' } },
    ]) {
      const { status, body } = await post('/clip/embed_image', more);
      assert.ok(status >= 400 && status < 500 && typeof body.message === 'string', `${status} ${JSON.stringify(body)}`);
    }
  });
});

client({ name: 'requests of Qdrant', version: 'service.rs', contract: 'Qdrant' }, async ({ check }) => {
  const input = (data, data_type, name) => ({ data, data_type, model: name, options: null });
  await check('texts and images', async () => {
    const inputs = [
      input(texts[0], 'text', 'Qdrant/clip-ViT-B-32-text'),
      input(base64(names[0]), 'image', 'Qdrant/clip-ViT-B-32-vision'),
      input(texts[1], 'text', model),
    ];
    const { embeddings, usage } = await ok('/qdrant/infer', { inputs, inference: 'update', token: null });
    assert.equal(embeddings.length, 3);
    same(embeddings[0], await textVector(texts[0]));
    same(embeddings[1], await imageVector(names[0]));
    same(embeddings[2], await textVector(texts[1]));
    assert.ok(
      usage === undefined || usage === null || Object.values(usage.models).every((m) => Number.isInteger(m.tokens)),
      JSON.stringify(usage),
    );
  });
  await check('errors', async () => {
    for (const bad of [input('x', 'text', 'another-model'), input({ a: 1 }, 'object', model), input('AAAA', 'image', model)]) {
      const { status, body } = await post('/qdrant/infer', { inputs: [bad], inference: 'search', token: null });
      assert.ok(status >= 400 && status < 500 && typeof body.error === 'string', `${status} ${JSON.stringify(body)}`);
    }
  });
});

client({ name: 'requests of clip-as-service', version: '0.8.3', contract: 'clip-as-service' }, async ({ check }) => {
  await check('/post: texts, data URIs, blobs', async () => {
    const { data, header } = await ok('/post', {
      data: [{ text: texts[0] }, { uri: dataURI(names[0]) }, { blob: base64(names[1]) }],
      execEndpoint: '/',
      parameters: {},
    });
    assert.equal(data.length, 3);
    assert.equal(data[0].text, texts[0]);
    assert.ok(header && data.every((d) => typeof d.id === 'string'));
    same(data[0].embedding, await textVector(texts[0]));
    same(data[1].embedding, await imageVector(names[0]));
    same(data[2].embedding, await imageVector(names[1]));
  });
  await check('/post with execEndpoint /rank', async () => {
    const matches = texts
      .slice(0, 3)
      .reverse()
      .map((text) => ({ text }));
    const {
      data: [{ matches: ranked }],
    } = await ok('/post', { data: [{ blob: base64(names[0]), matches }], execEndpoint: '/rank', parameters: {} });
    assert.deepEqual(ranked.map((m) => m.text).sort(), texts.slice(0, 3).sort());
    assert.equal(ranked[0].text, texts[0]);
    const v = await imageVector(names[0]);
    let sum = 0,
      last = Infinity;
    for (const m of ranked) {
      assert.ok(Math.abs(m.scores.clip_score_cosine.value - cosine(v, await textVector(m.text))) < 1e-4);
      assert.ok(m.scores.clip_score.value <= last);
      last = m.scores.clip_score.value;
      sum += last;
    }
    assert.ok(Math.abs(sum - 1) < 1e-4, `scores sum to ${sum}`);
  });
  await check('an error', async () => {
    const { status, body } = await post('/post', { data: [{ blob: 'AAAA' }], execEndpoint: '/' });
    assert.ok(status >= 400 && status < 500 && body && typeof body === 'object', `${status} ${JSON.stringify(body)}`);
  });
});

client({ name: 'requests of infinity', version: '0.0.77', contract: 'OpenAI' }, async ({ check }) => {
  const vectors = (answer) => answer.data.map((d) => d.embedding);
  await check('modality text and image', async () => {
    await sameTexts(vectors(await ok('/embeddings', { model, input: texts, modality: 'text', dimensions: 0 })));
    await sameImages(vectors(await ok('/embeddings', { model, input: names.map(dataURI), modality: 'image' })));
  });
});

client({ name: 'requests of vLLM', version: 'docs', contract: 'OpenAI' }, async ({ check }) => {
  const ask = async (content) =>
    (await ok('/v1/embeddings', { model, messages: [{ role: 'user', content }], encoding_format: 'float' })).data.map(
      (d) => d.embedding,
    );
  await check('messages with an image or a text', async () => {
    await sameImages(await ask([{ type: 'image_url', image_url: { url: dataURI(names[0]) } }]), names.slice(0, 1));
    await sameTexts(await ask([{ type: 'text', text: texts[0] }]), texts.slice(0, 1));
    await sameTexts(await ask(texts[0]), texts.slice(0, 1));
  });
});

client({ name: 'requests of LiteLLM and OpenRouter', version: 'docs', contract: 'OpenAI' }, async ({ check }) => {
  const ask = async (route, input) => (await ok(route, { model, input })).data.map((d) => d.embedding);
  await check('jina_ai: images as base64', async () =>
    sameImages(
      await ask(
        '/v1/embeddings',
        names.map((n) => ({ image: base64(n) })),
      ),
    ),
  );
  await check('/embeddings', async () => sameTexts(await ask('/embeddings', texts)));
  await check('input with content', async () => {
    const v = await ask('/v1/embeddings', [
      { content: [{ type: 'text', text: texts[0] }] },
      { content: [{ type: 'image_url', image_url: { url: dataURI(names[0]) } }] },
    ]);
    await sameTexts(v.slice(0, 1), texts.slice(0, 1));
    await sameImages(v.slice(1), names.slice(0, 1));
  });
});
