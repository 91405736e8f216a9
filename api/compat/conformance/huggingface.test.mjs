import assert from 'node:assert/strict';
import { InferenceClient } from '@huggingface/inference';
import {
  chip, client, cosine, counting, fails, image, imageVector, names, same, sameTexts, textVector, texts,
} from './harness.mjs';

client(
  { name: '@huggingface/inference', package: '@huggingface/inference', contract: 'Hugging Face' },
  async ({ url, check }) => {
    const open = (path) => new InferenceClient('none', { endpointUrl: `${url}${path}` });
    const blob = (name) => new Blob([image(name)]);
    const labels = ['cat', 'dog', 'pizza', 'guitar'];

    // The answer must be the softmax of the logit scale, which two cosines and their scores tell, times the cosines.
    const right = async (answer, name, template) => {
      assert.equal(answer.length, labels.length);
      assert.ok(Math.abs(answer.reduce((sum, a) => sum + a.score, 0) - 1) < 1e-4, 'scores sum to 1');
      assert.deepEqual(
        answer.map((a) => a.score),
        answer.map((a) => a.score).sort((a, b) => b - a),
        'sorted',
      );
      assert.equal(`${answer[0].label}.jpg`, name);
      const v = await imageVector(name);
      const cosines = await Promise.all(answer.map(async (a) => cosine(v, await textVector(template.replace('{}', a.label)))));
      const scale = Math.log(answer[0].score / answer[1].score) / (cosines[0] - cosines[1]);
      const exp = cosines.map((c) => Math.exp(scale * (c - cosines[0])));
      const sum = exp.reduce((a, b) => a + b);
      for (const [i, a] of answer.entries()) {
        assert.ok(Math.abs(a.score - exp[i] / sum) < 1e-3, `${a.label}: ${a.score}, not ${exp[i] / sum}`);
      }
      assert.ok(scale > 1 && scale <= 101, `logit scale ${scale}`);
    };
    for (const path of ['/', '/predict']) {
      await check(`zeroShotImageClassification at ${path}`, async () => {
        for (const name of names) {
          await right(
            await open(path).zeroShotImageClassification({
              inputs: { image: blob(name) },
              parameters: { candidate_labels: labels },
            }),
            name,
            'This is a photo of {}.',
          );
        }
      });
    }
    await check('zeroShotImageClassification with a template', async () => {
      const parameters = { candidate_labels: labels, hypothesis_template: 'a photo of a {}' };
      await right(
        await open('/').zeroShotImageClassification({ inputs: blob(names[0]), parameters }),
        names[0],
        'a photo of a {}',
      );
    });
    await check('featureExtraction of one text', async () => {
      const v = await open('/').featureExtraction({ inputs: texts[0] });
      same(Array.isArray(v[0]) ? v[0] : v, await textVector(texts[0]));
    });
    await check('featureExtraction of many texts', async () => sameTexts(await open('/').featureExtraction({ inputs: texts })));
    await check('featureExtraction at /embed (TEI)', async () =>
      sameTexts(await open('/embed').featureExtraction({ inputs: texts })),
    );
    await check('no labels: the service says so', async () => {
      const err = await fails(() => open('/').zeroShotImageClassification({ inputs: blob(names[0]), parameters: {} }));
      assert.match(err.message, /candidate_labels/);
      assert.equal(err.httpResponse.status, 400);
    });
    await check('no image: the service says so', async () => {
      const err = await fails(() =>
        open('/').zeroShotImageClassification({ inputs: new Blob(['no image']), parameters: { candidate_labels: labels } }),
      );
      assert.match(err.message, /image/);
      assert.equal(err.httpResponse.status, 400);
    });
    await check('imageClassification, which has no labels: the service says so', async () => {
      const err = await fails(() => open('/').imageClassification({ data: blob(names[0]) }));
      assert.match(err.message, /candidate_labels/);
      assert.equal(err.httpResponse.status, 400);
    });
    await check('a lost chip: the client, which repeats a 503 at once and for ever, does not', async () => {
      const { url: lost, tell, stop } = await chip();
      try {
        await tell('crash=1');
        const client = new InferenceClient('none', { endpointUrl: `${lost}/`, fetch: counting(3) });
        const err = await fails(() =>
          client.zeroShotImageClassification({ inputs: blob(names[0]), parameters: { candidate_labels: labels } }),
        );
        assert.ok(err.httpResponse?.status >= 500, err.message);
      } finally {
        await stop();
      }
    });
  },
);
