// The Node component around the current library @nats-io/transport-node. Usage: node component_now.js FOLDER
'use strict';
const fs = require('fs');
const path = require('path');
const { say, options_of, burst, serve } = require('./line_protocol.js');
const { connect, credsAuthenticator, nkeyAuthenticator } = require(path.join(process.argv[2], 'node_modules', '@nats-io', 'transport-node'));

const subscriptions = new Map();
const words_of_status = { disconnect: 'disconnected', reconnecting: 'reconnecting', reconnect: 'reconnected' };
let client;

async function report_status() {
  for await (const status of client.status()) {
    if (status.type in words_of_status) say(words_of_status[status.type]);
    else if (status.type === 'error') say('error', status.error);
  }
}

function credentials(values) {
  const options = {};
  if (values.ca) options.tls = { caFile: values.ca, certFile: values.cert, keyFile: values.key };
  if (values.seed) options.authenticator = nkeyAuthenticator(Buffer.from(fs.readFileSync(values.seed).toString().trim()));
  if (values.creds) options.authenticator = credsAuthenticator(fs.readFileSync(values.creds));
  return options;
}

const commands = {
  async connect(url, ...words) {
    client = await connect({ servers: url, ...credentials(options_of(words)) });
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
  burst(subject, ...words) {
    burst((payload) => client.publish(subject, payload), ...words);
  },
  async close() {
    await client.close();
  },
};

serve(commands);
