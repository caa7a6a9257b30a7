// The rates of the last ten minutes, from counters that are read once a second.

/** Time that is kept. */
const SPAN_MS = 600_000;
/** A longer pause between two samples is shown as a gap. */
const GAP_MS = 5000;

export class History {
  samples = [];
  #last = null;

  /** `names`: the counters. */
  constructor(names) {
    this.names = names;
  }

  /** Adds the counters at a time. `at` is in milliseconds, by the clock of the program. A counter that falls is that of a new process. */
  add(at, counters) {
    const last = this.#last;
    this.#last = { at, counters };
    if (!last || at <= last.at) return;
    const seconds = (at - last.at) / 1000;
    const isGap = at - last.at > GAP_MS;
    const rates = {};
    for (const name of this.names) {
      const change = counters[name] - last.counters[name];
      rates[name] = isGap || change < 0 ? null : change / seconds;
    }
    this.samples.push({ at, rates });
    while (this.samples[0].at < at - SPAN_MS) this.samples.shift();
  }

  /** Returns the latest rate of a counter, 0 before there are two samples. */
  now(name) {
    return this.samples.at(-1)?.rates[name] ?? 0;
  }

  /** Returns the time that a plot shows, in milliseconds: the shortest of a few that holds all samples. */
  span() {
    const all = this.samples.length > 0 ? this.samples.at(-1).at - this.samples[0].at : 0;
    return [60_000, 120_000, 300_000].find((span) => all <= span) ?? SPAN_MS;
  }

  highest(name) {
    return this.samples.reduce((most, sample) => Math.max(most, sample.rates[name] ?? 0), 0);
  }
}
