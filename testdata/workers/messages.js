// A program that talks to the other workers by process.send({to, type, data}), and gives
// them its clients' connections.
const http = require('http');

const waiting = new Map();
let last = 0;
const ask = (to, type, data, handle) => new Promise((resolve) => {
  const id = ++last;
  waiting.set(id, resolve);
  process.send({ to, type, data, id }, handle);
});

process.on('message', (m, handle) => {
  switch (m.type) {
    case 'answer':
    case 'undelivered':
      waiting.get(m.id)(m);
      waiting.delete(m.id);
      break;
    case 'connection':
      handle.end(`HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n${process.env.HANDOVER_WORKER} for ${m.from}\n`);
      break;
    case 'quiet':
      break;
    default:
      console.log(`got ${m.type} ${JSON.stringify(m.data)} from ${m.from}`);
  }
});

const server = http.createServer(async (req, res) => {
  const url = new URL(req.url, 'http://x');
  const to = url.searchParams.get('to');
  if (!server.listening) res.setHeader('Connection', 'close');
  switch (url.pathname) {
    case '/ask': {
      const m = await ask(to, url.searchParams.get('type'), { n: 1 });
      res.end(`${m.type} ${m.why || ''} ${process.env.HANDOVER_WORKER}\n`);
      break;
    }
    case '/flood': {
      const results = await Promise.all(Array.from({ length: 50 }, (_, n) => ask(to, 'quiet', n)));
      res.end(`${results.filter((m) => m.type === 'answer').length} ${results.length}\n`);
      break;
    }
    case '/give':
      await ask(to, 'connection', null, req.socket);
      break;
    default:
      res.end(`${process.env.HANDOVER_WORKER}\n`);
  }
});
server.listen({ fd: 3 }, () => process.send('ready'));
process.on('SIGTERM', () => server.close(() => process.exit(0)));
