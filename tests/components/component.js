// The Node component around the callback style libraries nats@0.2.9, 0.8.10 and 1.4.12. Usage: node component.js FOLDER
'use strict';
const fs = require('fs');
const path = require('path');
const { say, options_of, burst, serve } = require('./line_protocol.js');
const nats = require(path.join(process.argv[2], 'node_modules', 'nats'));

const subscriptions = new Map();
let client;

function credentials(values) {
  const options = {};
  const read = (file) => fs.readFileSync(file);
  if (values.ca) options.tls = { ca: [read(values.ca)] };
  if (values.cert) Object.assign(options.tls, { cert: read(values.cert), key: read(values.key) });
  if (values.seed) {
    const nkeys = require(path.join(process.argv[2], 'node_modules', 'ts-nkeys'));
    const pair = nkeys.fromSeed(Buffer.from(read(values.seed).toString().trim()));
    Object.assign(options, { nkey: values.nkey, nonceSigner: (nonce) => pair.sign(nonce) });
  }
  if (values.creds) options.userCreds = values.creds;
  return options;
}

const commands = {
  connect(url, ...words) {
    client = words.length ? nats.connect({ url, ...credentials(options_of(words)) }) : nats.connect(url);
    client.on('connect', () => say('connected'));
    client.on('disconnect', () => say('disconnected'));
    client.on('reconnecting', () => say('reconnecting'));
    client.on('reconnect', () => say('reconnected'));
    client.on('permission_error', (error) => say('error', error));
    client.on('error', (error) => say('error', error));
    client.on('close', () => say('closed'));
  },
  sub(name, subject, queue) {
    const options = queue ? { queue } : {};
    subscriptions.set(name, client.subscribe(subject, options, (payload, _reply, at) => say('msg', name, at, payload)));
  },
  unsub(name, max) {
    client.unsubscribe(subscriptions.get(name), max ? Number(max) : undefined);
  },
  answer(subject, prefix) {
    client.subscribe(subject, {}, (payload, reply) => client.publish(reply, prefix + payload));
  },
  pub(subject, payload) {
    client.publish(subject, payload);
  },
  request(subject, payload) {
    client.request(subject, payload, { max: 1 }, (reply) => say('reply', reply));
  },
  flush() {
    client.flush((error) => (error ? say('error', error) : say('flushed')));
  },
  burst(subject, ...words) {
    burst((payload) => client.publish(subject, payload), ...words);
  },
  close() {
    client.close();
    say('closed');
  },
};

serve(commands);
