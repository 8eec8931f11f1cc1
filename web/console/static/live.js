// What is alive on a page: the event stream, which only says that something has happened, and then the page's live part,
// fetched anew. Without this script every page works as well, and is as old as its last reload.
(() => {
  "use strict";
  const PACE = 400; // ms between two fetches, at least
  const SHARE = 5; // how much longer than an answer took the next question waits
  const SLOW = 10000; // ms after which a page is fetched anew where nothing was heard: usage and refusals are no events
  const RETRY = 3000; // ms until a stream that was refused is asked for again
  const AIM = 1000; // ms that a hand may take from its last move over a button to the press
  const NEXT = 1500; // ms after "g" in which a page's letter counts
  const OVER = [401, 403, 404]; // who may not, or no longer, see this page
  const live = () => document.getElementById("live");
  const button = document.getElementById("pulse");
  const told = document.getElementById("told");
  const kind = live()?.dataset.page;
  const touched = new Set();
  let source = null, last = "", stopped = false, timer = 0, ready = 0, opened = [], typed = [], began = 0;
  let isPressed = false, aimed = 0;

  const show = (state, words) => {
    if (!button) return;
    button.dataset.state = state;
    button.textContent = words;
    button.setAttribute("aria-pressed", String(!stopped));
  };

  // A field is known by its form and name: the page that is fetched has it, too. What a refresh does not touch needs no care.
  const FIELD = "input:not([type=hidden]), textarea, select";
  const isOurs = (field) => !!field?.matches?.(FIELD) && live()?.contains(field) && !field.closest("[hx-morph-skip]");
  const fields = () => [...live().querySelectorAll(FIELD)].filter(isOurs);
  const place = (field) => `${field.form?.getAttribute("action")} ${field.name}`;

  // Only what somebody has put there is theirs; what was taken back is the page's again. A comparison alone would take
  // for typed whatever a browser shows otherwise than it was sent, such as the ends of lines.
  document.addEventListener("input", ({ target }) => {
    if (!isOurs(target)) return;
    if (target.value === target.defaultValue) touched.delete(place(target)); else touched.add(place(target));
  });

  // Words that somebody has typed into a form that the new page has no more: they stay, and all of the page with them.
  const hasLost = (text) => {
    const there = new Set([...new DOMParser().parseFromString(text, "text/html").querySelectorAll(FIELD)].map(place));
    return fields().some((each) => touched.has(place(each)) && !there.has(place(each)));
  };

  // Nobody's words are taken from under their fingers, and no button from under a hand.
  const isBusy = () => isOurs(document.activeElement) || isPressed || Date.now() - aimed < AIM;

  document.addEventListener("pointerdown", (event) => { isPressed = event.button === 0; }, true);
  document.addEventListener("pointermove", (event) => {
    if (!event.buttons) isPressed = false; // it was let go where nobody could tell
    if (event.target.closest?.("#live a, #live button, #live summary")) aimed = Date.now();
  }, true);
  for (const end of ["pointerup", "pointercancel", "blur"]) addEventListener(end, () => { isPressed = false; });

  const refresh = () => {
    if (timer || stopped || document.hidden || !live()?.dataset.live) return;
    timer = setTimeout(() => {
      timer = 0;
      if (stopped || document.hidden || !live()) return;
      if (isBusy()) return wait(PACE);
      began = Date.now();
      ready = began + PACE;
      document.body.dispatchEvent(new CustomEvent("moved"));
    }, Math.max(0, ready - Date.now()));
  };

  const wait = (time) => {
    ready = Date.now() + time;
    refresh();
  };

  // An error is no page: what is there stays, and is asked for again. Where nobody may see it any more, what is shown
  // instead is: the sign-in, or why not.
  document.addEventListener("htmx:after:request", (event) => {
    const answer = event.detail.ctx.response.raw;
    if (OVER.includes(answer.status) || (answer.redirected && new URL(answer.url).pathname === "/login")) {
      event.preventDefault();
      location.reload();
    } else if (!answer.ok) wait(RETRY);
  });
  document.addEventListener("htmx:error", () => wait(RETRY));

  document.addEventListener("htmx:before:swap", (event) => {
    if (!live()) return;
    if (isBusy()) { // since it was asked for
      event.preventDefault();
      return wait(PACE);
    }
    if (hasLost(event.detail.ctx.text)) {
      event.preventDefault();
      if (told) told.textContent = "This page has changed, and waits for what is typed on it.";
      show("lost", "Waits for what is typed");
      return wait(SLOW);
    }
    if (source?.readyState === EventSource.OPEN) show("on", "Live");
    opened = [...live().querySelectorAll("details[open][id]")].map((each) => each.id);
    typed = fields().filter((each) => touched.has(place(each))).map((each) => [place(each), each.value]);
  });

  document.addEventListener("htmx:after:swap", () => {
    if (!live()) return;
    if (live().dataset.page !== kind) return location.reload(); // what is around the live part is another page's
    ready = Math.max(ready, Date.now() + SHARE * (Date.now() - began)); // who answers slowly is asked less often
    for (const field of fields()) {
      const mine = typed.find(([where]) => where === place(field));
      if (mine) field.value = mine[1];
    }
    opened.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
    document.dispatchEvent(new CustomEvent("charts"));
    connect();
    copying();
    const facts = live().querySelector("[role=status]");
    if (facts && told) told.textContent = facts.textContent.trim().replace(/\s+/g, " ");
  });

  const connect = () => {
    const from = live()?.dataset.live;
    if (!from || stopped || document.hidden || source) return;
    const mark = from.includes("?") ? "&" : "?";
    last ||= live().dataset.after; // from before the page was made: what happened meanwhile is told at once
    source = new EventSource(`${from}${mark}after=${encodeURIComponent(last)}`);
    source.onopen = () => show("on", "Live");
    source.onmessage = (event) => { last = event.lastEventId || last; refresh(); };
    source.addEventListener("resync", (event) => { last = event.lastEventId || ""; refresh(); });
    source.onerror = () => {
      show("lost", "Reconnecting");
      if (source && source.readyState === EventSource.CLOSED) {
        disconnect(); // refused, perhaps for what it asked to go on from: the page, fetched anew, knows better
        wait(RETRY);
      }
    };
  };

  const disconnect = () => { source?.close(); source = null; last = ""; };

  const copying = () => {
    for (const each of document.querySelectorAll("button[data-copy]")) {
      each.hidden = false;
      each.onclick = async () => {
        try {
          await navigator.clipboard.writeText(each.dataset.copy);
        } catch { // over plain HTTP there is no clipboard
          const field = document.createElement("textarea");
          field.value = each.dataset.copy;
          document.body.append(field);
          field.select();
          document.execCommand("copy");
          field.remove();
        }
        each.textContent = "Copied";
      };
    }
  };

  if (button && live()?.dataset.live) {
    button.hidden = false;
    show("off", "Live");
    button.onclick = () => {
      stopped = !stopped;
      if (stopped) { disconnect(); show("off", "Stopped"); } else refresh(); // and listens from there on
    };
  }
  document.addEventListener("visibilitychange", () => { if (document.hidden) disconnect(); else refresh(); });
  addEventListener("pagehide", disconnect);
  setInterval(refresh, SLOW);

  const page = (key) => document.querySelector(`nav a[data-key="${CSS.escape(key)}"]`);

  // Where a page has no search, the agents' is meant.
  const search = () => {
    const field = document.getElementById("search");
    if (field) { field.focus(); field.select(); } else if (page("a")) location.assign(`${page("a").href}#search`);
  };

  let going = 0;
  document.addEventListener("keydown", (event) => {
    const at = document.activeElement;
    if (event.ctrlKey || event.metaKey || event.altKey || (at && /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName))) return;
    const isGoing = Date.now() - going < NEXT;
    going = 0;
    if (isGoing) page(event.key)?.click();
    else if (event.key === "g") going = Date.now();
    else if (event.key === "/") { event.preventDefault(); search(); }
    else if (event.key === "r") location.reload();
  });

  document.getElementById(location.hash.slice(1))?.closest("details")?.setAttribute("open", "");
  copying();
  connect();
})();
