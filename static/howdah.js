/* What a page does beyond links and forms; without it everything still reads and acts. */
(() => {
  "use strict";
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const typing = (element) => element.matches("input, select, textarea, [contenteditable]");
  const say = (text) => { const place = one("#said"); if (place) place.textContent = text; };

  /* Times: the server writes UTC, the reader sees their own zone. */
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const whole = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "long" });
  const brief = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const localise = () => {
    for (const time of all("time[datetime]:not([data-local])")) {
      const moment = new Date(time.dateTime);
      if (Number.isNaN(moment.getTime())) continue;
      time.dataset.local = "";
      time.title = `${whole.format(moment)} (${zone})`;
      if ("clock" in time.dataset) time.textContent = brief.format(moment);
    }
  };
  /* By the server's clock: the reader's may be wrong by minutes. */
  const skew = Date.now() - 1000 * Number(document.body.dataset.now ?? Date.now() / 1000);
  const clockNow = () => Date.now() - (Math.abs(skew) > 5000 ? skew : 0);
  /* An age grows while a page waits: "1 s ago" may not stand there for minutes. */
  const ageWords = (seconds) => {
    if (seconds < 60) return `${seconds} s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
    if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${String(Math.floor((seconds % 3600) / 60)).padStart(2, "0")} min`;
    return `${Math.floor(seconds / 86400)} d`;
  };
  const grow = () => {
    for (const time of all("time[datetime]:not([data-clock], [data-then])")) {
      if (!time.textContent.endsWith(" ago")) continue;
      const text = `${ageWords(Math.max(0, Math.floor((clockNow() - new Date(time.dateTime)) / 1000)))} ago`;
      if (time.textContent !== text) time.textContent = text;
    }
  };
  setInterval(() => { if (!document.hidden) grow(); }, 1000);
  const two = (number) => String(number).padStart(2, "0");
  const inputs = (form) => all("input[type=datetime-local]", form);
  for (const form of all("form[data-moments]")) {
    for (const input of inputs(form)) {
      const moment = new Date(`${input.value}Z`);
      if (!Number.isNaN(moment.getTime())) {
        input.value = `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())}T${two(moment.getHours())}:${two(moment.getMinutes())}:${two(moment.getSeconds())}`;
      }
    }
    const name = one("[data-zone]", form);
    if (name) name.textContent = `in ${zone}`;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const url = new URL(location);
      for (const word of one("[name=with_at]", form) ? ["page"] : ["from", "to", "at", "page"]) url.searchParams.delete(word);
      for (const input of inputs(form)) if (input.value) url.searchParams.set(input.name, Math.floor(new Date(input.value) / 1000));
      location.assign(url);
    });
  }

  /* The palette: targets and pages, by typing. */
  const palette = one("#palette");
  const openPalette = () => {
    if (!palette || palette.open) return;
    palette.showModal();
    const field = one("input", palette);
    field.value = "";
    one("#palette-found", palette).replaceChildren();
    narrow("");
    field.focus();
  };
  const choices = () => all("li", palette).filter((line) => !line.hidden && one("a", line));
  const choose = (index) => {
    const lines = choices();
    lines.forEach((line, i) => { if (i === index) one("a", line).setAttribute("aria-current", "true"); else one("a", line).removeAttribute("aria-current"); });
    lines[index]?.scrollIntoView({ block: "nearest" });
  };
  const chosen = () => choices().findIndex((line) => one("a", line).hasAttribute("aria-current"));
  const narrow = (text) => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    for (const line of all("li", palette)) line.hidden = !("found" in line.dataset) && !words.every((word) => line.textContent.toLowerCase().includes(word));
    for (const heading of all("h2", palette)) heading.hidden = !all("li", heading.nextElementSibling).some((line) => !line.hidden);
    one(".palette-none", palette).hidden = choices().length > 0;
    choose(0);
  };
  /* Tables and queries are too many to stand in the page: the server looks them up. */
  let looked = 0;
  const look = async (text) => {
    const query = new URLSearchParams({ q: text, target: palette.dataset.target });
    const answer = await fetch(`${palette.dataset.find}?${query}`);
    const field = one("input", palette);
    if (!answer.ok || field.value !== text) return;
    one("#palette-found", palette).innerHTML = await answer.text();
    narrow(text);
  };
  palette?.addEventListener("input", (event) => {
    const text = event.target.value;
    one("#palette-found", palette).replaceChildren();
    narrow(text);
    clearTimeout(looked);
    if (text.trim().length > 1) looked = setTimeout(() => look(text), 150);
  });
  palette?.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) { event.preventDefault(); choose(Math.max(0, Math.min(choices().length - 1, chosen() + step))); }
    else if (event.key === "Enter" && event.target.matches("input")) { event.preventDefault(); const line = choices()[chosen()]; if (line) location.assign(one("a", line).href); }
  });

  /* A part of the page from the server: the address changes, the frame stays. */
  const WINDOW = ["window", "from", "to", "at"];
  const carry = () => {
    for (const link of all("a[download], .window a")) {
      const own = new URL(link.href);
      const query = new URLSearchParams(location.search);
      const words = link.hasAttribute("download") ? ["format"] : WINDOW;
      for (const word of [...words, "page", "format"]) query.delete(word);
      for (const word of words) if (own.searchParams.has(word)) query.set(word, own.searchParams.get(word));
      own.search = query;
      link.href = own;
    }
  };
  const part = (url, push) => {
    if (!window.htmx || !one("#body")) { location.assign(url); return; }
    if (push) history.pushState({}, "", url); else history.replaceState(history.state, "", url);
    seen = place();
    htmx.ajax("GET", String(url), { target: "#body", swap: "morph:outerHTML" }).then(carry);
  };
  /* Going back changes the part, too; a jump within the page is no other part. */
  const place = () => location.pathname + location.search;
  let seen = place();
  window.addEventListener("popstate", () => { if (place() !== seen) location.reload(); });

  let typed = 0;
  document.addEventListener("input", (event) => {
    const form = event.target.closest("form[data-search]");
    if (!form) return;
    clearTimeout(typed);
    typed = setTimeout(() => search(form), 250);
  });
  const search = (form) => {
    const url = new URL(form.action);
    url.search = new URLSearchParams(new FormData(form));
    if (!url.searchParams.get("q")) url.searchParams.delete("q");
    part(url, false);
  };

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.matches("form[data-search]")) {
      event.preventDefault();
      clearTimeout(typed);
      search(form);
    } else if (form.matches("form[data-opens-preview]") && window.htmx && one("#dialog-place")) {
      event.preventDefault();
      preview(form);
    }
  });

  /* A preview opens as a dialog; closing it brings the focus back. It refreshes itself until it is ready. */
  const preview = (form) => {
    const opener = document.activeElement;
    const dialog = document.createElement("dialog");
    dialog.id = "preview";
    dialog.setAttribute("aria-labelledby", "preview-title");
    dialog.addEventListener("close", () => {
      dialog.remove();
      (opener?.isConnected ? opener : document.getElementById(opener?.id || "main"))?.focus();
    });
    one("#dialog-place").replaceChildren(dialog);
    const values = Object.fromEntries(new FormData(form));
    htmx.ajax("POST", form.action, { source: form, values, target: dialog, swap: "innerHTML" }).then(() => {
      if (dialog.isConnected && dialog.childElementCount && !dialog.open) dialog.showModal();
      (one("[autofocus]", dialog) ?? one("[data-close]", dialog))?.focus();
    });
  };
  /* A refusal (409, 429) is an answer for people, too. */
  document.addEventListener("htmx:beforeSwap", (event) => {
    if ([409, 429].includes(event.detail.xhr.status)) { event.detail.shouldSwap = true; event.detail.isError = false; }
  });

  document.addEventListener("click", (event) => {
    const at = (selector) => event.target.closest(selector);
    const modified = event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0;
    if (at("[data-open=palette]") && !modified) { event.preventDefault(); openPalette(); }
    else if (at("[data-close]")) { event.preventDefault(); at("dialog")?.close(); }
    else if (at("a[data-part]") && !modified) { event.preventDefault(); part(at("a[data-part]").href, true); }
    else if (at("[data-copy]")) copy(at("[data-copy]"));
    else if (at("[aria-disabled=true]")) { event.preventDefault(); say(at("[aria-disabled=true]").dataset.why ?? ""); }
    for (const menu of all("details.pick[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  const copy = async (button) => {
    const block = button.closest(".code");
    const text = [...block.childNodes].filter((node) => node !== button).map((node) => node.textContent).join("");
    try { await navigator.clipboard.writeText(text.trim()); say("Copied."); button.dataset.done = ""; } catch { getSelection().selectAllChildren(block); }
  };
  document.addEventListener("keydown", (event) => {
    const slash = event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && !typing(event.target);
    if (((event.ctrlKey || event.metaKey) && event.key === "k") || slash) { event.preventDefault(); openPalette(); }
    const way = typing(event.target) || event.ctrlKey || event.metaKey ? null : one(`a[data-key="${CSS.escape(event.key)}"]`);
    if (way) { event.preventDefault(); way.click(); }
    if (event.key === "Escape") for (const menu of all("details.pick[open]")) { menu.open = false; one("summary", menu).focus(); }
  });

  /* A typed name unlocks the button of a confirmation; the server checks it again. */
  const unlock = () => {
    for (const field of all("[data-confirm]")) {
      for (const button of field.form?.elements ?? []) {
        if (button.matches("[data-go]")) button.disabled = field.value.trim() !== field.dataset.confirm;
      }
    }
  };
  document.addEventListener("input", unlock);
  /* A moment is chosen when the bar is let go. */
  document.addEventListener("change", (event) => event.target.closest("form[data-scrub]")?.requestSubmit());

  /* Live pages: a body asks for itself again while it is seen, and waits while somebody is in it. */
  const busy = (body) => {
    if (one("[data-still]:hover, .plot-box:hover, .lane:hover, details.pick[open], [data-still] input:checked", body) || one("dialog[open]")) return true;
    const focus = document.activeElement;
    return Boolean(focus && focus.matches(":focus-visible") && focus.closest("[data-still], .plot-box") && body.contains(focus));
  };
  const asked = new WeakMap();
  const beat = () => {
    for (const body of all("[data-refresh]")) {
      if (!asked.has(body)) asked.set(body, Date.now());
      const due = Date.now() - asked.get(body) >= 1000 * Number(body.dataset.refresh);
      const waits = document.hidden || busy(body);
      const note = one(".fresh-paused");
      if (note) note.hidden = !(waits && !document.hidden);
      if (due && !waits) { asked.set(body, Date.now()); htmx.trigger(body, "refresh"); }
    }
  };
  if (window.htmx || one("[data-refresh]")) setInterval(beat, 500);

  /* A refresh changes what differs and leaves the rest: focus, scroll and what was opened stay. */
  if (window.Idiomorph) {
    Idiomorph.defaults.ignoreActiveValue = true; // what somebody types is newer than the answer
    Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, element) => !(name === "open" && element.matches("details"));
  }
  const settle = () => {
    localise();
    unlock();
  };
  document.addEventListener("htmx:afterSwap", settle);
  document.addEventListener("htmx:oobAfterSwap", localise);
  const silent = () => {
    const fresh = one("#fresh");
    if (!fresh) return;
    fresh.dataset.level = "critical";
    const text = one(".fresh-text", fresh);
    if (text) text.textContent = "Howdah does not answer";
  };
  document.addEventListener("htmx:sendError", silent);
  document.addEventListener("htmx:responseError", (event) => {
    if (event.detail.xhr.status >= 500) silent();
    else if (event.detail.xhr.status !== 401) say(`Refused: ${event.detail.xhr.status}.`);
  });

  localise();
  unlock();
})();
