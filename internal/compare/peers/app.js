// What every peer serves, in Node. It is the program of pm2's cluster mode, and of the
// workers of cluster.js. Both tell a process to stop: pm2 by SIGINT, cluster.js by a message.
const crypto = require('crypto');
const http = require('http');

const server = http.createServer((req, res) => {
  const url = new URL(req.url, 'http://x');
  const ms = Number(url.searchParams.get('ms') || 0);
  res.setHeader('X-Worker', String(process.pid));
  res.setHeader('X-Request-Id', req.headers['x-request-id'] || '');
  // Else a connection that is in use all the time would never end.
  if (!server.listening) res.setHeader('Connection', 'close');
  if (url.pathname === '/upload') {
    const hash = crypto.createHash('sha256');
    let n = 0;
    req.on('data', (b) => { n += b.length; hash.update(b); });
    req.on('end', () => res.end(`${n} ${hash.digest('hex')}\n`));
  } else if (url.pathname === '/stream') {
    let left = 10;
    const part = () => {
      if (left-- === 0) return res.end();
      res.write('part\n');
      setTimeout(part, ms / 10);
    };
    part();
  } else if (ms > 0) {
    setTimeout(() => res.end('slow\n'), ms);
  } else {
    res.end('hello\n');
  }
});

server.listen(Number(process.env.PORT), '127.0.0.1', () => process.send && process.send('ready'));

const stop = () => server.close(() => process.exit(0));
process.on('SIGINT', stop);
process.on('message', (m) => { if (m === 'stop') stop(); });
