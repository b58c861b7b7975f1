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
      exit();
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

const answering = new Set();
const server = http.createServer(async (req, res) => {
  answering.add(res);
  res.on('close', () => { answering.delete(res); exit(); });
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
    case '/last': // a while after it was asked to stop
      console.log('the last one is here');
      process.once('SIGTERM', () => setTimeout(() => res.end(`${process.env.HANDOVER_WORKER}\n`), 300));
      break;
    default:
      res.end(`${process.env.HANDOVER_WORKER}\n`);
  }
});
// Only of an upgrade the http server gives the socket up, and does not look for it again.
server.on('upgrade', (req, socket) => {
  ask(new URL(req.url, 'http://x').searchParams.get('to'), 'connection', null, socket);
});
server.listen({ fd: 3 }, () => process.send('ready'));
// What it has sent has to have arrived, too. And a server that has given one of its sockets
// to another process takes itself for closed while it still answers on others.
let closed = false;
const exit = () => { if (closed && waiting.size === 0 && answering.size === 0) process.exit(0); };
process.on('SIGTERM', () => {
  for (const res of answering) if (!res.headersSent) res.setHeader('Connection', 'close');
  server.close(() => { closed = true; exit(); });
});
