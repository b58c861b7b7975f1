module.exports = {
  apps: [{
    name: 'app',
    script: './app.js',
    exec_mode: 'cluster',
    instances: 2,
    wait_ready: true, // a process is used when it says 'ready'
    listen_timeout: 10000,
    kill_timeout: 10000, // for requests in flight
  }],
};
