// The Node component around the current library @nats-io/transport-node. Usage: node component_now.js FOLDER
'use strict';
const path = require('path');
const readline = require('readline');
const { connect } = require(path.join(process.argv[2], 'node_modules', '@nats-io', 'transport-node'));

const say = (...words) => process.stdout.write(words.join(' ') + '\n');
const subscriptions = new Map();
const words_of_status = { disconnect: 'disconnected', reconnecting: 'reconnecting', reconnect: 'reconnected' };
let client;

async function report_status() {
  for await (const status of client.status()) {
    if (status.type in words_of_status) say(words_of_status[status.type]);
    else if (status.type === 'error') say('error', status.error);
  }
}

const commands = {
  async connect(url) {
    client = await connect({ servers: url });
    client.closed().then((error) => say('closed', error || ''));
    report_status();
    say('connected');
  },
  sub(name, subject, queue) {
    const callback = (error, message) => (error ? say('error', error) : say('msg', name, message.subject, message.string()));
    subscriptions.set(name, client.subscribe(subject, { queue, callback }));
  },
  unsub(name, max) {
    subscriptions.get(name).unsubscribe(max ? Number(max) : undefined);
  },
  answer(subject, prefix) {
    client.subscribe(subject, { callback: (_error, message) => message.respond(prefix + message.string()) });
  },
  pub(subject, payload) {
    client.publish(subject, payload);
  },
  async request(subject, payload) {
    say('reply', (await client.request(subject, payload, { timeout: 10_000 })).string());
  },
  async flush() {
    await client.flush();
    say('flushed');
  },
  burst(subject, prefix, count, rate) {
    const start = Date.now();
    let sent = 0;
    const timer = setInterval(() => {
      const due = Math.min(Number(count), Math.ceil(((Date.now() - start) * Number(rate)) / 1000));
      while (sent < due) client.publish(subject, prefix + ++sent);
      if (sent === Number(count)) {
        clearInterval(timer);
        say('burst-done', count);
      }
    }, 2);
  },
  async close() {
    await client.close();
  },
};

process.on('unhandledRejection', (error) => say('error', String(error).replace(/\n/g, ' | ')));
readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const [command, ...words] = line.split(' ');
  try {
    await commands[command](...words);
  } catch (error) {
    say('error', String(error).replace(/\n/g, ' | '));
  }
}).on('close', () => process.exit(0));
