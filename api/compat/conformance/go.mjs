import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { line, root, wanted } from './harness.mjs';

// The clients by what the names of their tests begin with, their modules and contracts.
const clients = [
  ['TestOpenAIGo', 'github.com/openai/openai-go/v3', 'OpenAI'],
  ['TestGoOpenAI', 'github.com/sashabaranov/go-openai', 'OpenAI'],
  ['TestOllama', 'github.com/ollama/ollama', 'Ollama'],
  ['TestCohere', 'github.com/cohere-ai/cohere-go/v2', 'Cohere v1, v2'],
  ['TestWeaviate', 'github.com/weaviate/weaviate', 'Weaviate'],
];

// goLines runs the tests of clients in Go, which start services of their own, and adds a line for each client. Its checks are the
// tests and subtests that have no tests below them.
export async function goLines() {
  const folder = path.join(root, 'api/compat/conformance/go');
  if (!existsSync(folder) || (wanted.length && !wanted.includes('go'))) {
    return;
  }
  const child = spawn('go', ['test', '-count=1', '-json', './...'], { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise((resolve, reject) => child.on('exit', resolve).on('error', reject));
  const verdicts = new Map(),
    output = new Map();
  for await (const text of createInterface(child.stdout)) {
    const event = text.startsWith('{') ? JSON.parse(text) : { Action: 'output', Output: `${text}\n` };
    const test = event.Test ?? '';
    if (event.Output) {
      output.set(test, (output.get(test) ?? '') + event.Output);
    } else if (['pass', 'fail', 'skip'].includes(event.Action)) {
      verdicts.set(test, event.Action);
    }
  }
  const code = await ended;
  const said = (test) =>
    (output.get(test) ?? '')
      .split('log of the service:')[0]
      .split('\n')
      .map((l) => l.trim())
      .filter((l) => l && !/^(=== |--- )/.test(l))
      .join(' ')
      .slice(0, 300);
  const tests = [...verdicts.keys()].filter((t) => t && ![...verdicts.keys()].some((other) => other.startsWith(`${t}/`)));
  const mod = readFileSync(path.join(folder, 'go.mod'), 'utf8');
  for (const [prefix, module, contract] of clients) {
    const its = tests.filter((t) => t.startsWith(prefix));
    const of = (verdict) => its.filter((t) => verdicts.get(t) === verdict);
    line({
      name: `${module.replace('github.com/', '')} (Go)`,
      version: mod
        .split('\n')
        .map((l) => l.trim().split(' '))
        .find((l) => l.includes(module))
        ?.find((w) => /^v\d/.test(w)),
      contract,
      checks: its.length - of('skip').length,
      reasons: of('fail').map((t) => `${t}: ${said(t)}`),
      skipped: of('pass').length + of('fail').length ? '' : of('skip').map(said)[0],
    });
  }
  const others = tests.filter((t) => !clients.some(([prefix]) => t.startsWith(prefix)) && verdicts.get(t) === 'fail');
  if (others.length || (code && !tests.some((t) => verdicts.get(t) === 'fail'))) {
    line({
      name: 'go test',
      contract: '',
      checks: 1,
      reasons: others.length ? others.map((t) => `${t}: ${said(t)}`) : [said('') || `it has ended with ${code}`],
    });
  }
}
