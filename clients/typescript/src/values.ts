/** Ids of messages, and values from text. All of them throw a TypeError that says what is expected. */

import { create } from "@bufbuild/protobuf";
import { timestampFromMs, type Timestamp } from "@bufbuild/protobuf/wkt";
import { CivilDateTimeSchema, type CivilDateTime } from "./gen/mailing/v1/civil_date_time_pb.js";
import { ReceiveWindowSchema, type ReceiveWindow } from "./gen/mailing/v1/client_pb.js";
import { TimeOfDaySchema, type TimeOfDay } from "./gen/mailing/v1/time_of_day_pb.js";

const CLIENT_BITS = 32n;
const SECONDS_PER_DAY = 86_400;

/** Return the id of the message of a mailing to a client. */
export function messageId(mailingId: bigint, clientId: bigint): bigint {
  return (mailingId << CLIENT_BITS) | clientId;
}

/** Return the mailing of a message, read from the message's id. */
export function mailingOf(id: bigint): bigint {
  return id >> CLIENT_BITS;
}

/** Return the client of a message, read from the message's id. */
export function clientOf(id: bigint): bigint {
  return BigInt.asUintN(Number(CLIENT_BITS), id);
}

/**
 * Return the daily window from `start` to `end`, local times such as `9:00` or `09:00:30`. An end at or before the start is
 * on the next day: 22:00 to 06:00 crosses midnight, and equal times mean the whole day.
 */
export function window(start: string, end: string): ReceiveWindow {
  const [opens, closes] = [timeOfDay(start), timeOfDay(end)];
  const length = sinceMidnight(closes) - sinceMidnight(opens);
  return create(ReceiveWindowSchema, {
    start: opens,
    duration: { seconds: BigInt(length > 0 ? length : length + SECONDS_PER_DAY) },
  });
}

/** Return a local time of day from text such as `9:00` or `09:00:30`. */
export function timeOfDay(text: string): TimeOfDay {
  const found = /^([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?$/.exec(text);
  if (!found) throw new TypeError(`"${text}" is not a time of day such as 09:00 or 09:00:30`);
  const [hours, minutes, seconds] = found.slice(1).map((part) => Number(part ?? 0));
  return create(TimeOfDaySchema, { hours, minutes, seconds });
}

function sinceMidnight({ hours, minutes, seconds }: TimeOfDay): number {
  return hours * 3600 + minutes * 60 + seconds;
}

/** Return the digits of an international number as people write it: `+7 (916) 123-45-67`. */
export function phone(text: string): string {
  const found = /^\+?([1-9]\d{6,14})$/.exec(text.replaceAll(/[ ().-]/g, ""));
  if (!found?.[1]) throw new TypeError(`"${text}" is not an international phone number of 7 to 15 digits such as +79161234567`);
  return found[1];
}

/** Return a moment from text in RFC 3339, such as `2030-01-31T09:00:00+03:00`. */
export function moment(text: string): Timestamp {
  const zoned = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/.test(text);
  const at = zoned ? Date.parse(text) : NaN;
  if (Number.isNaN(at)) throw new TypeError(`"${text}" is not a moment with its zone such as 2030-01-31T09:00:00+03:00`);
  return timestampFromMs(at);
}

/** Return a date and a time of day without a zone, from text such as `2030-01-31T09:30:00`. */
export function localTime(text: string): CivilDateTime {
  const shaped = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$/.test(text);
  if (!shaped || Number.isNaN(Date.parse(`${text}Z`))) throw new TypeError(`"${text}" is not a local time such as 2030-01-31T09:30:00`);
  const [year, month, day, hours, minutes, seconds] = text.split(/[-T:]/).map(Number);
  return create(CivilDateTimeSchema, { year, month, day, hours, minutes, seconds });
}
