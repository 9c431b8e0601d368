/**
 * Numbers for people. Whatever is no finite number is not known, and shown as a dash: JSON has no NaN, and its strings
 * "NaN" and "Infinity" must not reach the page either.
 */

export const UNKNOWN = "–";

const LOCALE = "en-GB";
const MOST_DECIMALS = 8;
const LARGE_E_VALUE = Math.log(1e4);

/** The number, or null. */
export function known(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/** How many: 1,234. */
export function count(value) {
  return decimal(value, 0);
}

/** With so many decimals, and a real minus. */
export function decimal(value, decimals, { sign = false } = {}) {
  if (known(value) === null) {
    return UNKNOWN;
  }
  const options = {
    minimumFractionDigits: decimals,
    maximumFractionDigits: decimals,
    signDisplay: sign ? "exceptZero" : "negative",
  };
  return value.toLocaleString(LOCALE, options).replace("-", "−");
}

/** With so many significant digits. */
export function significant(value, digits = 3) {
  if (known(value) === null) {
    return UNKNOWN;
  }
  return value.toLocaleString(LOCALE, { maximumSignificantDigits: digits }).replace("-", "−");
}

/** A share in per cent; neither 0 nor 100 unless it is. */
export function percent(share) {
  if (known(share) === null) {
    return UNKNOWN;
  }
  if (share > 0 && share < 0.001) {
    return "< 0.1 %";
  }
  if (share < 1 && share > 0.999) {
    return "> 99.9 %";
  }
  return `${decimal(100 * share, share === 0 || share === 1 ? 0 : 1)} %`;
}

/** A duration, in the unit that suits it. */
export function duration(seconds) {
  if (known(seconds) === null) {
    return UNKNOWN;
  }
  if (seconds >= 120) {
    return `${count(seconds / 60)} min`;
  }
  if (seconds >= 1 || seconds === 0) {
    return `${significant(seconds)} s`;
  }
  return seconds >= 1e-3 ? `${significant(1e3 * seconds)} ms` : `${significant(1e6 * seconds)} µs`;
}

/** The texts of an estimate, with as many decimals as its interval deserves. */
export function estimate(given, { sign = false } = {}) {
  const { value, low, high } = given ?? {};
  const hasInterval = known(low) !== null && known(high) !== null;
  const decimals = hasInterval && high > low ? decimalsOf(high - low) : decimalsOf(Math.abs(known(value) ?? 0) / 10);
  return {
    value: decimal(value, decimals, { sign }),
    range: hasInterval ? `${decimal(low, decimals, { sign })} to ${decimal(high, decimals, { sign })}` : "",
  };
}

/** An e-value, given as its natural logarithm: 12.3, or 10^8. */
export function eValue(logarithm) {
  if (known(logarithm) === null) {
    return UNKNOWN;
  }
  return Math.abs(logarithm) < LARGE_E_VALUE
    ? significant(Math.exp(logarithm), 2)
    : `10^${decimal(logarithm / Math.LN10, 0)}`;
}

/** A moment, given in seconds since the epoch; with its day where that is not today. */
export function moment(seconds) {
  if (known(seconds) === null) {
    return UNKNOWN;
  }
  const date = new Date(1000 * seconds);
  const time = date.toLocaleTimeString(LOCALE);
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString(LOCALE)} ${time}`;
}

/** The zone that moments are told in: "UTC", "GMT+1". */
export function zone() {
  const parts = new Intl.DateTimeFormat(LOCALE, { timeZoneName: "shortOffset" }).formatToParts(new Date());
  return parts.find((part) => part.type === "timeZoneName").value;
}

/** For a machine. */
export function isoMoment(seconds) {
  const date = new Date(1000 * (known(seconds) ?? NaN));
  return Number.isNaN(date.getTime()) ? null : date.toISOString();
}

function decimalsOf(width) {
  return width > 0 ? Math.min(Math.max(Math.ceil(-Math.log10(width)) + 1, 0), MOST_DECIMALS) : 0;
}
