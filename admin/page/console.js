"use strict";
(() => {
  const every = 3000, kept = 200, patience = 10000;
  const id = (name) => document.getElementById(name);
  const store = {
    get(where, key) { try { return where.getItem(key); } catch { return null; } },
    set(where, key, value) { try { value === null ? where.removeItem(key) : where.setItem(key, value); } catch { /* private mode */ } },
  };
  const root = document.documentElement;
  root.classList.add("script");
  const theme = store.get(localStorage, "theme");
  if (theme) root.dataset.theme = theme;

  let token = store.get(sessionStorage, "token");
  let headline = "", timer = 0, busy = false;
  const history = new Map();

  const send = (path, options = {}) => {
    const headers = { ...options.headers };
    if (token) headers.Authorization = "Bearer " + token;
    return fetch(path, { ...options, headers, cache: "no-store", credentials: "same-origin", redirect: "error", signal: AbortSignal.timeout(patience) });
  };

  const problem = async (response) => {
    try { return (await response.json()).detail || response.statusText; } catch { return response.status + " " + response.statusText; }
  };

  const toast = (text) => {
    id("toast").textContent = text;
    id("toast").hidden = false;
    clearTimeout(toast.timer);
    toast.timer = setTimeout(() => { id("toast").hidden = true; }, 6000);
  };

  const live = (text, state) => {
    if (id("live").textContent !== text) id("live").textContent = text;
    id("live").className = "live " + state;
    id("state").classList.toggle("stale", state === "off");
  };

  // One point a poll; the line spans what has been seen.
  const draw = () => {
    for (const spark of id("state").querySelectorAll(".spark")) {
      const points = history.get(spark.dataset.key) || [];
      const value = spark.dataset.value === "" ? NaN : Number(spark.dataset.value);
      if (!spark.dataset.drawn) {
        points.push(value);
        if (points.length > kept) points.shift();
        history.set(spark.dataset.key, points);
        spark.dataset.drawn = "yes";
      }
      const known = points.filter((v) => !Number.isNaN(v));
      if (known.length < 2) continue;
      const most = Math.max(...known), least = Math.min(...known);
      const margin = Math.max((most - least) * 0.25, Math.abs(most) * 0.1) || 1; // a small wobble is no mountain
      const low = least >= 0 ? Math.max(0, least - margin) : least - margin, span = most + margin - low;
      const y = (v) => 29 - 28 * (v - low) / span;
      const line = [];
      points.forEach((v, i) => { if (!Number.isNaN(v)) line.push((100 * i / (points.length - 1)).toFixed(1) + "," + y(v).toFixed(1)); });
      const make = (name, list) => {
        const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
        shape.setAttribute("points", list.join(" "));
        return shape;
      };
      const at = (text) => text.split(",")[0];
      spark.replaceChildren(make("polygon", [at(line[0]) + ",30", ...line, at(line[line.length - 1]) + ",30"]), make("polyline", line));
    }
  };

  const announce = () => {
    const hero = id("hero");
    if (!hero) return;
    const marks = { critical: "● ", warning: "▲ " };
    const title = document.querySelector("h1").textContent;
    document.title = (marks[hero.dataset.level] || "") + title;
    if (hero.dataset.headline !== headline) {
      headline = hero.dataset.headline;
      id("announce").textContent = headline;
    }
  };

  const show = (html) => {
    const selection = getSelection();
    if (selection && !selection.isCollapsed && id("state").contains(selection.anchorNode)) return; // somebody copies
    const focused = id("state").contains(document.activeElement) ? document.activeElement.id : "";
    const scrolled = [...id("state").querySelectorAll(".scroll")].map((e) => [e.getAttribute("aria-labelledby"), e.scrollLeft]);
    id("state").replaceChildren(...new DOMParser().parseFromString(html, "text/html").body.childNodes);
    for (const [label, left] of scrolled) {
      const e = left && id("state").querySelector('.scroll[aria-labelledby="' + label + '"]');
      if (e) e.scrollLeft = left;
    }
    if (focused && id(focused)) id(focused).focus({ preventScroll: true });
  };

  const poll = async () => {
    clearTimeout(timer);
    if (busy || id("ask-token").open) return;
    busy = true;
    try {
      const response = await send("console/state");
      if (response.status === 401) {
        live("", "");
        if (token) toast("The token is not valid.");
        id("ask-token").showModal();
        return;
      }
      if (!response.ok) throw new Error(await problem(response));
      show(await response.text());
      id("leave").hidden = !token;
      draw();
      announce();
      live("live", "on");
    } catch (error) {
      live("no answer: " + (error.name === "TimeoutError" ? "timeout" : error.message), "off");
    } finally {
      busy = false;
      if (!document.hidden && !id("ask-token").open) timer = setTimeout(poll, every);
    }
  };

  id("ask-token").addEventListener("cancel", (event) => event.preventDefault());
  id("ask-token").addEventListener("close", () => {
    token = id("token").value.trim();
    id("token").value = "";
    store.set(sessionStorage, "token", token || null);
    poll();
  });
  id("leave").addEventListener("click", () => {
    store.set(sessionStorage, "token", null);
    location.reload();
  });
  id("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    store.set(localStorage, "theme", root.dataset.theme);
  });

  let pending = null;
  id("state").addEventListener("click", (event) => {
    const button = event.target.closest("button.act");
    if (!button) return;
    pending = { ...button.dataset };
    id("confirm-title").textContent = pending.heading;
    id("confirm-text").textContent = pending.text;
    id("confirm-yes").textContent = button.textContent.replace("…", "");
    id("confirm-yes").classList.toggle("danger", button.classList.contains("danger"));
    id("confirm-label").hidden = !pending.field;
    id("confirm-label").firstElementChild.textContent = pending.field ? pending.field[0].toUpperCase() + pending.field.slice(1) : "";
    id("confirm-field").value = "";
    id("confirm").returnValue = "";
    id("confirm").showModal();
  });
  id("confirm-field").addEventListener("keydown", (event) => {
    if (event.key === "Enter") { // the form's first button is Cancel
      event.preventDefault();
      id("confirm").close("yes");
    }
  });
  id("confirm").addEventListener("close", async () => {
    const what = pending;
    pending = null;
    if (!what || id("confirm").returnValue !== "yes") return;
    const options = { method: what.method };
    const text = id("confirm-field").value.trim();
    if (what.field && text) {
      options.headers = { "Content-Type": "application/json" };
      options.body = JSON.stringify({ [what.field]: text });
    }
    try {
      const response = await send(what.path, options);
      toast(response.ok ? "Done." : await problem(response));
    } catch (error) {
      toast("No answer: " + error.message + ". Look before you repeat it.");
    }
    poll();
  });

  document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
  draw();
  announce();
  poll();
})();
