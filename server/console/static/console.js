// What the console does beyond HTML: the viewer's zone, shortcuts, and telling when the line is lost.
// Everything but the live part works without it.
"use strict";

const offline = document.getElementById("offline");

// Times are written in the viewer's zone by the server, which learns it here once.
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
if (document.documentElement.dataset.zone !== zone && !document.cookie.includes("zone=" + encodeURIComponent(zone))) {
  document.cookie = "zone=" + encodeURIComponent(zone) + ";path=/;max-age=31536000;samesite=lax" + (location.protocol === "https:" ? ";secure" : "");
  // Not while somebody types, and only if the server may have another zone.
  if (!document.querySelector("form.compose") && document.cookie.includes("zone=")) location.reload();
}

// The stream of a page: lost, back, or signed out meanwhile.
document.addEventListener("htmx:sse:error", (event) => {
  if (event.detail.status === 401) location.reload();
  else offline.hidden = false;
});
document.addEventListener("htmx:sse:after:connection", () => { offline.hidden = true; });
document.addEventListener("htmx:sse:before:message", () => { offline.hidden = true; });

// What the stream's own reconnecting leaves out: a first connection that failed, and a stream that was given up.
const live = document.getElementById("live");
async function revive() {
  if (document.hidden || live._htmx?.sse) return;
  const url = live.getAttribute("hx-sse:connect");
  const answer = await fetch(url, { method: "HEAD" }).catch(() => null);
  if (answer?.status === 401) location.reload();
  else if (!answer?.ok) offline.hidden = false;
  else if (!live._htmx?.sse) htmx.ajax("GET", url, { source: live });
}
if (live) setInterval(revive, 4000);

const retry = document.querySelector("[data-retry]");
if (retry) setTimeout(() => location.reload(), Number(retry.dataset.retry));

// Dialogs.
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-open]");
  if (opener) document.getElementById(opener.dataset.open).showModal();
});

// A form that was sent is not sent again by a second click.
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.method === "dialog") return;
  const button = event.submitter;
  if (button) setTimeout(() => { button.disabled = true; setTimeout(() => { button.disabled = false; }, 3000); }, 0);
});

// Shortcuts: g and a letter goes to a screen.
const screens = { o: "/", m: "/mailings", r: "/schedules", s: "/messages", c: "/clients", a: "/segments", e: "/endpoints", d: "/dispatchers", l: "/log", t: "/settings" };
let going = 0;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
  if (document.querySelector("dialog[open]")) return;
  const path = Date.now() - going < 1500 ? screens[event.key] : undefined;
  going = 0;
  if (path) location.href = path;
  else if (event.key === "g") going = Date.now();
  else if (event.key === "n") location.href = "/mailings/new";
  else if (event.key === "?") document.getElementById("keys").showModal();
  else if (event.key === "/") {
    const search = document.querySelector("[data-search]");
    if (search) { event.preventDefault(); search.focus(); search.select(); }
  }
});
