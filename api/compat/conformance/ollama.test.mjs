import assert from 'node:assert/strict';
import { Ollama } from 'ollama';
import { client, dimension, fails, long, model, same, sameTexts, textVector, texts, tokens } from './harness.mjs';

client({ name: 'ollama', package: 'ollama', contract: 'Ollama' }, async ({ url, check }) => {
  const ollama = new Ollama({ host: url });
  await check('embed, many', async () => {
    const answer = await ollama.embed({ model, input: texts });
    await sameTexts(answer.embeddings);
    assert.equal(answer.model, model);
    assert.equal(answer.prompt_eval_count, await tokens(texts));
    assert.ok(Number.isInteger(answer.total_duration) && Number.isInteger(answer.load_duration), 'durations in nanoseconds');
  });
  await check('embed, one', async () =>
    sameTexts((await ollama.embed({ model, input: texts[0] })).embeddings, texts.slice(0, 1)),
  );
  await check('embed, none', async () => assert.deepEqual((await ollama.embed({ model, input: [] })).embeddings, []));
  await check('embed, with options and keep_alive', async () => {
    await sameTexts(
      (
        await ollama.embed({
          model,
          input: texts,
          keep_alive: '5m',
          truncate: true,
          dimensions: dimension,
          options: { num_ctx: 77 },
        })
      ).embeddings,
    );
  });
  await check('embeddings', async () =>
    same((await ollama.embeddings({ model, prompt: texts[0] })).embedding, await textVector(texts[0])),
  );
  await check('a long text is cut', async () =>
    assert.equal((await ollama.embed({ model, input: long })).embeddings[0].length, dimension),
  );
  await check('a long text with truncate false is refused', async () =>
    assert.equal((await fails(() => ollama.embed({ model, input: long, truncate: false }))).status_code, 400),
  );
  for (const [what, ask] of [
    ['embed', (m) => ollama.embed({ model: m, input: 'x' })],
    ['embeddings', (m) => ollama.embeddings({ model: m, prompt: 'x' })],
  ]) {
    await check(`${what}, another model`, async () => {
      const err = await fails(() => ask('llama3'));
      assert.deepEqual([err.name, err.status_code, err.error], ['ResponseError', 404, "model 'llama3' not found"]);
    });
  }
  await check('a number as input', async () => {
    const err = await fails(() => ollama.embed({ model, input: 7 }));
    assert.deepEqual([err.status_code, err.error], [400, 'invalid input type']);
  });
});
