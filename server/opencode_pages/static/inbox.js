"use strict";
// Keeps the inbox as it is now: by a stream of events, and below it by asking from time to time.

const ASK_MILLISECONDS = 30000;
const now = document.getElementById("now");
const stale = document.getElementById("stale");
let mark = now.dataset.mark;
let shown = "";
let known = new Date();
let stream;
let isReplaced = false;

function show(html) {
  stale.hidden = true;
  known = new Date();
  if (html === shown) return;
  shown = html;
  const focused = now.contains(document.activeElement) ? document.activeElement.id : "";
  now.innerHTML = html;
  localTimes(now);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  const waiting = now.querySelector("[data-waiting]")?.dataset.waiting;
  document.title = (waiting ? `(${waiting}) ` : "") + "Inbox · opencode-relay";
}

function listen() {
  if (isReplaced || (stream && stream.readyState !== EventSource.CLOSED)) return;
  stream = new EventSource(`/inbox/events?seen=${mark}`);
  stream.addEventListener("message", (event) => {
    mark = event.lastEventId;
    show(event.data);
  });
  // Another page of this person took its place, or the session is over, as the answer says.
  stream.addEventListener("over", () => {
    stream.close();
    isReplaced = true;
    ask();
  });
}

async function ask() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/inbox/now", { redirect: "manual" });
    // Led elsewhere: the session is over.
    if (answer.type === "opaqueredirect" || [401, 403].includes(answer.status)) return location.reload();
    const found = answer.headers.get("inbox-mark");
    // Of a proxy, while the relay restarts: no news, least of all that nothing waits.
    if (!found) throw new Error("no inbox");
    show(await answer.text());
    mark = found;
    listen();
  } catch {
    stale.textContent = `No connection: this is as it was at ${known.toLocaleTimeString([], { timeStyle: "short" })}.`;
    stale.hidden = false;
  }
}

listen();
setInterval(ask, ASK_MILLISECONDS);
document.addEventListener("visibilitychange", () => {
  isReplaced = false;
  ask();
});
