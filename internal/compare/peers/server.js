// A worker in plain Node: it takes its socket by number (listen({fd})), and at TERM
// it finishes what it has.
const crypto = require('crypto');
const http = require('http');

const who = `node ${process.env.HANDOVER_WORKER} pid=${process.pid}`;
const server = http.createServer((req, res) => {
  const url = new URL(req.url, 'http://x');
  if (url.pathname === '/crash') process.nextTick(() => { throw new Error('asked for at /crash'); });
  const hash = crypto.createHash('sha256');
  let n = 0;
  req.on('data', (b) => { n += b.length; hash.update(b); });
  req.on('end', () => setTimeout(() => {
    const head = { 'X-Worker': who };
    if (req.headers['x-request-id']) head['X-Request-Id'] = req.headers['x-request-id'];
    if (!server.listening) head.Connection = 'close';
    res.writeHead(200, head);
    res.end(req.method === 'POST' ? `${n} ${hash.digest('hex')}\n` : `${who}\n`);
  }, Number(url.searchParams.get('ms') || 0)));
});
server.listen({ fd: 3 }, () => {
  console.log('serving');
  if (process.send) process.send('ready');
});
process.on('SIGTERM', () => {
  console.log('draining');
  server.close(() => process.exit(0));
});
