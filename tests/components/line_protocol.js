// The line protocol (README.md) of the Node components.
'use strict';
const readline = require('readline');

const say = (...words) => process.stdout.write(words.join(' ') + '\n');
const say_error = (error) => say('error', String((error && error.stack) || error).replace(/\n/g, ' | '));

// The options `OPTION=VALUE` of `connect`, by name.
function options_of(words) {
  return Object.fromEntries(words.map((word) => [word.slice(0, word.indexOf('=')), word.slice(word.indexOf('=') + 1)]));
}

// Publishes PREFIX1, PREFIX2, … by calls of `publish`.
function burst(publish, prefix, count, rate) {
  const start = Date.now();
  let sent = 0;
  const timer = setInterval(() => {
    const due = Math.min(Number(count), Math.ceil(((Date.now() - start) * Number(rate)) / 1000));
    while (sent < due) publish(prefix + ++sent);
    if (sent === Number(count)) {
      clearInterval(timer);
      say('burst-done', count);
    }
  }, 2);
}

// Calls, for each line of standard input, the function that its first word names.
function serve(commands) {
  process.on('uncaughtException', say_error);
  process.on('unhandledRejection', say_error);
  readline.createInterface({ input: process.stdin }).on('line', async (line) => {
    const [command, ...words] = line.split(' ');
    try {
      await commands[command](...words);
    } catch (error) {
      say_error(error);
    }
  }).on('close', () => process.exit(0));
}

module.exports = { say, options_of, burst, serve };
