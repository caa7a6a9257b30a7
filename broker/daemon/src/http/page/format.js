// Numbers, times and names as the page shows them.

/** Formats a whole number with separators: 12,345. */
export const whole = (value) => Math.round(value).toLocaleString("en");

const scaled = (value, step, units) => {
  let at = 0;
  while (value >= step && at < units.length - 1) {
    value /= step;
    at += 1;
  }
  const digits = at === 0 || value >= 100 ? 0 : 1;
  const text = value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return units[at] ? `${text} ${units[at]}` : text;
};

/** Formats a number of at most four digits, with a unit above 10,000: 9,999, then 12.3 k. */
export const short = (value) => (value < 10_000 ? whole(value) : scaled(value, 1000, ["", "k", "M", "G", "T"]));

/** Formats bytes: 999 B, 1.5 kB, 20.1 MB. */
export const bytes = (value) => scaled(value, 1000, ["B", "kB", "MB", "GB", "TB", "PB"]);

/** Formats milliseconds: 8.4 ms, 1.25 s. */
export const milliseconds = (value) => {
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  return `${value >= 100 ? Math.round(value) : value.toFixed(1)} ms`;
};

/** Formats seconds in the two largest units: 42 s, 3 min 5 s, 2 h 10 min, 4 d 3 h. */
export const duration = (seconds) => {
  const all = Math.floor(seconds);
  const units = [
    [86_400, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const at = units.findIndex(([length]) => all >= length);
  if (at < 0) return "0 s";
  let rest = all;
  const parts = [];
  for (const [length, unit] of units.slice(at, at + 2)) {
    const count = Math.floor(rest / length);
    rest -= count * length;
    if (count > 0) parts.push(`${count} ${unit}`);
  }
  return parts.join(" ");
};

/** Formats a time of day, in the time zone of the browser. `at` is in milliseconds since 1970. */
export const clock = (at) => new Date(at).toLocaleTimeString("en-GB");

/** Shortens a duration as Go writes it, such as 3.422761ms, to three digits in each number. */
export const shortened = (text) => text.replaceAll(/[\d.]+/g, (digits) => String(Number(Number(digits).toPrecision(3))));

/** Formats a number with its noun: 1 session, 2 sessions. */
export const counted = (count, noun) => `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;

/** Formats a name from the data of a program: underscores become spaces. */
export const words = (name) => name.replaceAll("_", " ");
