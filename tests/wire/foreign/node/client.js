// The rows of tests/wire/foreign/__init__.py by the npm package ssh2.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const net = require('net');
const { Client } = require('ssh2');

const [port, username, key, directory, echoPort] = process.argv.slice(2);
const payload = fs.readFileSync(`${directory}/payload`);
const client = new Client();
let exchanges = 0;

const asked = (call) =>
  new Promise((resolve, reject) => call((error, value) => (error ? reject(error) : resolve(value))));

const toEnd = (stream) =>
  new Promise((resolve, reject) => {
    const pieces = [];
    stream.on('data', (piece) => pieces.push(piece));
    stream.on('end', () => resolve(Buffer.concat(pieces)));
    stream.on('error', reject);
  });

const closed = (stream) => new Promise((resolve) => stream.on('close', resolve));

async function run(command, input = '') {
  const stream = await asked((done) => client.exec(command, done));
  let status = null;
  stream.on('exit', (code) => { status = code; });
  const over = closed(stream);
  const outputs = Promise.all([toEnd(stream), toEnd(stream.stderr)]);
  stream.end(input);
  const [out, err] = await outputs;
  await over;
  return { out: out.toString(), err: err.toString(), status };
}

const rows = {
  exec: () => run('cat; echo err >&2; exit 7', 'out\n'),

  async pty() {
    const stream = await asked((done) => client.shell({ term: 'vt100', cols: 91, rows: 33 }, done));
    let shown = '';
    let status = null;
    stream.on('exit', (code) => { status = code; });
    const over = closed(stream);
    stream.on('data', (piece) => {
      const before = shown.includes('33 91');
      shown += piece;
      if (!before && shown.includes('33 91')) {
        stream.setWindow(40, 120, 0, 0);
        stream.write('stty size; echo $TERM; exit 4\n');
      }
    });
    stream.write('stty size\n');
    await over;
    return { shown, status };
  },

  async symlink() {
    const sftp = await asked((done) => client.sftp(done));
    await asked((done) => sftp.symlink('a-target', `${directory}/link`, done));
    const target = await asked((done) => sftp.readlink(`${directory}/link`, done));
    sftp.end();
    return { target };
  },

  async transfer() {
    const sftp = await asked((done) => client.sftp(done));
    await asked((done) => sftp.fastPut(`${directory}/payload`, `${directory}/put`, done));
    await asked((done) => sftp.fastGet(`${directory}/put`, `${directory}/got`, done));
    sftp.end();
    return {};
  },

  async local_forward() {
    const stream = await asked((done) => client.forwardOut('127.0.0.1', 1, '127.0.0.1', Number(echoPort), done));
    const back = toEnd(stream);
    stream.end(payload.subarray(0, 65536));
    return { digest: crypto.createHash('sha256').update(await back).digest('hex') };
  },

  async remote_forward() {
    client.once('tcp connection', (_, accept) => { const stream = accept(); stream.pipe(stream); });
    const bound = await asked((done) => client.forwardIn('127.0.0.1', 0, done));
    const link = net.connect(bound, '127.0.0.1');
    const back = toEnd(link);
    link.end('hello');
    const heard = (await back).toString();
    await asked((done) => client.unforwardIn('127.0.0.1', bound, done));
    return { heard };
  },

  async rekey() {
    const before = exchanges;
    const over = new Promise((resolve) => client.once('handshake', resolve));
    client._protocol.rekey(); // no public name leads there
    await over;
    const { out } = await run('echo after');
    return { out, exchanges: exchanges - before };
  },

  keepalive: () => run('sleep 2; echo kept'),
};

async function all() {
  console.log(JSON.stringify({ row: 'login' }));
  for (const [row, made] of Object.entries(rows)) {
    try {
      console.log(JSON.stringify({ row, ...await made() }));
    } catch (error) {
      console.log(JSON.stringify({ row, error: String(error) }));
    }
  }
  client.end();
}

client.on('handshake', () => { exchanges += 1; });
client.on('error', (error) => { console.error(error); process.exitCode = 1; });
client.on('ready', all);
// Three pings without an answer would end the connection; the last row lasts for eight.
client.connect({
  host: '127.0.0.1', port, username, privateKey: fs.readFileSync(key), keepaliveInterval: 250, keepaliveCountMax: 3,
});
