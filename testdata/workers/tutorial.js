// A worker as a tutorial on Node processes has it: its master sends it a server, it
// answers with its pid, and it goes when something was not caught, which it is not after
// every answer. It knows nothing of who its master is.
const http = require('http');

const app = http.createServer((req, res) => {
  const head = { 'Content-Type': 'text/plain', Connection: 'close', 'X-Worker': `pid=${process.pid}` };
  if (req.headers['x-request-id']) head['X-Request-Id'] = req.headers['x-request-id'];
  res.writeHead(200, head);
  res.end(`handled by child, pid is ${process.pid}\n`);
  throw new Error('thrown after the answer');
});

let server;
process.on('message', (message, handle) => {
  console.log(`message ${JSON.stringify(message)}`);
  if (message !== 'server') return;
  server = handle;
  server.on('connection', (socket) => app.emit('connection', socket));
});

process.on('uncaughtException', (err) => {
  console.log(`uncaught: ${err.message}`);
  process.send({ act: 'suicide' });
  server.close(() => process.exit(1));
});
