// A program of one file that uses cluster, as its documentation has it: the worker's side
// listens on a port, and knows nothing of who its primary is.
const cluster = require('cluster');
const crypto = require('crypto');
const http = require('http');

if (cluster.isPrimary) throw new Error('a worker is wanted here');
const who = `cluster ${process.env.HANDOVER_WORKER} pid=${process.pid}`;
const server = http.createServer((req, res) => {
  const url = new URL(req.url, 'http://x');
  const hash = crypto.createHash('sha256');
  let n = 0;
  req.on('data', (b) => { n += b.length; hash.update(b); });
  req.on('end', () => setTimeout(() => {
    const head = { 'X-Worker': who };
    if (req.headers['x-request-id']) head['X-Request-Id'] = req.headers['x-request-id'];
    res.writeHead(200, head);
    res.end(req.method === 'POST' ? `${n} ${hash.digest('hex')}\n` : `${who}\n`);
  }, Number(url.searchParams.get('ms') || 0)));
});
server.listen(Number(process.argv[2]), () => console.log(`listens as ${cluster.worker.id}`));
process.on('message', (m) => console.log(`message ${JSON.stringify(m)}`));
setInterval(() => {}, 1e9); // such as a connection to a database, which nobody closes
