// A tenant as a Node cluster has it: a worker of its own, in which Fastify answers as the tests'
// function `answers` does, by a route with a schema.
//
// The primary says `ready`, and then does as its standard input says, a line at a time: `fork`
// starts a worker and says `listening PID ADDRESS`; `end` ends it and says `ended`. There is one
// worker at a time. The primary ends with its input, and the worker with it.

import cluster from 'node:cluster';
import readline from 'node:readline';

if (cluster.isPrimary) {
  let worker;
  cluster.on('listening', ({ process: { pid } }, { address, port }) => {
    console.log(`listening ${pid} ${address}:${port}`);
  });
  cluster.on('exit', () => console.log('ended'));
  const lines = readline.createInterface({ input: process.stdin });
  lines.on('line', (line) => {
    if (line === 'fork') worker = cluster.fork();
    if (line === 'end') worker.process.kill('SIGKILL');
  });
  lines.on('close', () => {
    worker?.process.kill('SIGKILL');
    process.exit();
  });
  console.log('ready');
} else {
  const { default: fastify } = await import('fastify');
  const server = fastify();
  const body = {
    type: 'object',
    required: ['status', 'headers'],
    properties: {
      status: { type: 'integer', minimum: 200, maximum: 599 },
      headers: {
        type: 'array',
        items: { type: 'array', minItems: 2, maxItems: 2, items: { type: 'string' } },
      },
      body: { type: 'string' },
    },
  };
  server.post('/answers', { schema: { body } }, async (request, reply) => {
    const { status, headers, body = '' } = request.body;
    reply.code(status);
    for (const [name, value] of headers) reply.header(name, value);
    return body;
  });
  await server.listen({ host: '127.0.0.1', port: 0 });
}
