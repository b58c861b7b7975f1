// A rolling restart with node:cluster: at HUP each worker is told to stop when another one
// listens in its place.
const cluster = require('cluster');
const path = require('path');

cluster.setupPrimary({ exec: path.join(__dirname, 'app.js') });
const fork = () => new Promise((resolve) => {
  const worker = cluster.fork();
  worker.once('listening', () => resolve(worker));
});

let workers = [];
let rolling = Promise.resolve();
const roll = async () => {
  const before = workers;
  workers = [];
  for (const old of before) {
    workers.push(await fork());
    old.send('stop');
  }
};
process.on('SIGHUP', () => { rolling = rolling.then(roll); });
process.on('SIGTERM', () => {
  for (const worker of Object.values(cluster.workers)) worker.kill('SIGTERM');
  process.exit(0);
});
(async () => { workers = [await fork(), await fork()]; })();
