import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { pathToFileURL } from 'node:url';
import { JinaAIEmbedding } from '@llamaindex/jinaai';
import {
  client, fails, image, imagePath, imageVector, names, same, sameImages, sameTexts, startService, textVector, texts,
} from './harness.mjs';

client({ name: '@llamaindex/jinaai', package: '@llamaindex/jinaai', contract: 'Jina' }, async ({ url, check }) => {
  const open = (more = {}) =>
    new JinaAIEmbedding({ apiKey: 'none', model: 'jina-clip-v1', baseURL: `${url}/v1/embeddings`, ...more });
  await check('getTextEmbedding', async () => same(await open().getTextEmbedding(texts[0]), await textVector(texts[0])));
  await check('getTextEmbeddings', async () => sameTexts(await open().getTextEmbeddings(texts)));
  await check('getImageEmbedding of a file', async () =>
    same(await open().getImageEmbedding(pathToFileURL(imagePath(names[0]))), await imageVector(names[0])),
  );
  await check('getImageEmbeddings of Blobs', async () =>
    sameImages(await open().getImageEmbeddings(names.map((n) => new Blob([image(n)])))),
  );
  await check('getTextEmbeddingsBatch', async () => sameTexts(await open({ embedBatchSize: 3 }).getTextEmbeddingsBatch(texts)));
  await check('with task and late_chunking', async () =>
    sameTexts(await open({ task: 'retrieval.passage', late_chunking: false }).getTextEmbeddings(texts)),
  );
  await check('an image by remote address', async () =>
    assert.match(
      (await fails(() => open().getImageEmbedding('http://192.0.2.1/a.jpg'))).message,
      /status 400.*(fetch\.allow|192\.0\.2\.1)/,
    ),
  );
  await check('an image by remote address, of a host in fetch.allow', async () => {
    const server = createServer((request, response) => response.end(image(request.url.slice(1))));
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const address = `127.0.0.1:${server.address().port}`;
    const allowing = await startService([`fetch.allow=${address}`]);
    try {
      same(
        await open({ baseURL: `${allowing.url}/v1/embeddings` }).getImageEmbedding(`http://${address}/${names[1]}`),
        await imageVector(names[1]),
      );
    } finally {
      await allowing.stop();
      server.closeAllConnections();
      server.close();
    }
  });
  await check('another model', async () =>
    assert.match(
      (await fails(() => open({ model: 'jina-embeddings-v3' }).getTextEmbedding('x'))).message,
      /status 404.*jina-embeddings-v3/,
    ),
  );
});
