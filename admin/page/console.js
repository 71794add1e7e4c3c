"use strict";
(() => {
  const every = 5000, hurried = 1000, patience = 10000, colours = 6;
  const id = (name) => document.getElementById(name);
  const all = (selector) => [...id("state").querySelectorAll(selector)];
  const store = {
    get(where, key) { try { return where.getItem(key); } catch { return null; } },
    set(where, key, value) { try { value === null ? where.removeItem(key) : where.setItem(key, value); } catch { /* private mode */ } },
  };
  const root = document.documentElement;
  root.classList.add("script");
  const theme = store.get(localStorage, "theme");
  if (theme) root.dataset.theme = theme;

  const scope = (/^\?scope=(instance|fleet)$/.exec(location.search) || [""])[0];
  let token = store.get(sessionStorage, "token");

  // ---- units, as consoleformat.go writes them

  const short = (v) => {
    const abs = Math.abs(v);
    if (abs >= 1e9) return short(v / 1e9) + " G";
    if (abs >= 1e6) return short(v / 1e6) + " M";
    if (abs >= 1e5) return short(v / 1e3) + " k";
    if (abs >= 100 || Number.isInteger(v)) return v.toFixed(0);
    if (abs < 0.01) return "≈ 0";
    return abs >= 10 ? String(+v.toFixed(1)) : String(+v.toPrecision(2));
  };
  const span = (v) => {
    const abs = Math.abs(v);
    if (abs === 0) return "0 ms";
    if (abs < 1e-3) return short(v * 1e6) + " µs";
    if (abs < 1) return short(v * 1e3) + " ms";
    if (abs < 120) return short(v) + " s";
    return abs < 7200 ? short(v / 60) + " min" : short(v / 3600) + " h";
  };
  const bytes = (v) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let i = 0;
    for (; Math.abs(v) >= 1024 && i < units.length - 1; i++) v /= 1024;
    return short(v) + " " + units[i];
  };
  const suffix = { per_second: " /s", per_minute: " /min" };
  const quantity = (v, unit) => {
    if (v === null || v === undefined) return "–";
    if (unit === "seconds") return span(v);
    if (unit === "ratio") return short(v * 100) + " %";
    if (unit === "bytes") return bytes(v);
    if (unit === "bytes_per_day") return bytes(v) + " /day";
    return short(v) + (suffix[unit] || "");
  };
  const clock = (seconds, fine) => new Date(seconds * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: fine ? "2-digit" : undefined });

  // ---- charts

  const plots = new Map(); // metric → uPlot
  let drawn = null, drawnTag = "", chartsDue = 0;
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // A threshold beyond the scale is drawn at its edge and says its value.
  const limits = (chart) => (u) => {
    const { ctx, bbox } = u, dense = devicePixelRatio;
    const line = (value, name) => {
      if (value === null || (value > chart.top && name === "--critical")) return;
      const beyond = value > chart.top;
      const width = Math.max(1, Math.round(dense)); // on whole pixels, so that it is sharp
      const y = Math.round(beyond ? bbox.top + dense : u.valToPos(value, "y", true)) + (width % 2) / 2;
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = colour(name);
      ctx.lineWidth = width;
      ctx.setLineDash([4 * dense, 4 * dense]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      if (beyond) {
        ctx.font = 10 * dense + "px system-ui, sans-serif";
        ctx.textAlign = "right";
        ctx.textBaseline = "top";
        ctx.fillText("▲ " + quantity(value, chart.unit), bbox.left + bbox.width, y + 3 * dense);
      }
      ctx.restore();
    };
    line(chart.warning, "--warning");
    line(chart.critical, "--critical");
  };

  const read = (chart) => (u) => {
    const card = u.root.closest(".card"), i = u.cursor.idx;
    if (!card) return;
    card.querySelector(".readout").textContent = i === null || i === undefined ? "" : clock(u.data[0][i], true) + " " +
      chart.names.map((name, n) => (chart.names.length > 1 ? name + " " : "") + quantity(chart.values[n][i], chart.unit)).join(", ");
  };

  const build = (chart, times, width) => {
    const font = "10px system-ui, -apple-system, sans-serif", dim = () => colour("--dim");
    return new uPlot({
      width, height: 112, padding: [6, 22, 0, 0], legend: { show: false },
      cursor: { sync: { key: "console" }, drag: { x: false, y: false }, y: false, points: { size: 6 } },
      scales: { y: { range: () => [0, chart.top] } },
      axes: [
        { size: 20, gap: 4, font, stroke: dim, grid: { show: false }, ticks: { show: false }, space: 56,
          values: (u, at, axis, space, step) => at.map((t) => clock(t, step < 60)) },
        { size: (u, labels) => Math.max(46, 12 + 6 * Math.max(0, ...(labels || []).map((l) => l.length))), gap: 5, font, stroke: dim, grid: { stroke: () => colour("--grid"), width: 1 }, ticks: { show: false }, space: 26,
          values: (u, at) => at.map((v) => quantity(v, chart.unit)) },
      ],
      series: [{}, ...chart.names.map((name, i) => ({
        label: name, stroke: () => colour("--s" + i % colours), width: 1.5, points: { show: false },
        fill: chart.names.length === 1 ? () => colour("--s0") + "1f" : undefined,
      }))],
      hooks: { draw: [limits(chart)], setCursor: [read(chart)] },
    }, [times, ...chart.values]);
  };

  // Puts every chart into its card. Those whose data is the same are moved, not drawn anew.
  const draw = () => {
    if (!drawn || typeof uPlot === "undefined") return;
    let longest = 0;
    for (const chart of drawn.charts) for (const line of chart.values) longest = Math.max(longest, line.length);
    if (longest < 2) return;
    const times = Array.from({ length: longest }, (_, i) => drawn.start + i * drawn.step);
    for (const place of all(".plot")) {
      const chart = drawn.charts.find((c) => c.key === place.dataset.key);
      if (!chart || !place.clientWidth) continue;
      let u = plots.get(chart.key);
      if (!u || u.chart !== chart) {
        if (u) u.destroy();
        u = build(chart, times, place.clientWidth);
        u.chart = chart;
        plots.set(chart.key, u);
      }
      if (u.root.parentNode !== place) place.replaceChildren(u.root);
    }
    for (const e of all(".span")) e.textContent = "last " + span(Math.round(longest * drawn.step));
  };
  const redraw = () => { for (const u of plots.values()) u.redraw(false, true); };

  // ---- asking

  const headers = (etag) => ({ ...(token && { Authorization: "Bearer " + token }), ...(etag && { "If-None-Match": etag }) });
  const send = (path, options = {}) =>
    fetch(path, { ...options, headers: { ...headers(), ...options.headers }, cache: "no-store", credentials: "same-origin", redirect: "error", signal: AbortSignal.timeout(patience) });

  // XMLHttpRequest parses HTML into a document by itself, so the page needs no right to make markup out of text.
  const page = (path, etag) => new Promise((resolve, reject) => {
    const x = new XMLHttpRequest();
    x.open("GET", path);
    x.responseType = "document";
    x.timeout = patience;
    for (const [name, value] of Object.entries(headers(etag))) x.setRequestHeader(name, value);
    x.onload = () => resolve(x);
    x.onerror = () => reject(new Error("no connection"));
    x.ontimeout = () => reject(new Error("no answer"));
    x.send();
  });

  const problem = async (response) => {
    try { return (await response.json()).detail || response.statusText; } catch { return response.status + " " + response.statusText; }
  };

  const toast = (text) => {
    id("toast").textContent = text;
    id("toast").hidden = false;
    clearTimeout(toast.timer);
    toast.timer = setTimeout(() => { id("toast").hidden = true; }, 6000);
  };

  // ---- how old is what is shown

  let last = Date.now(), failed = "";
  const age = () => {
    const old = span(Math.max(0, Math.floor((Date.now() - last) / 1000)) || 0).replace("0 ms", "0 s");
    const text = id("ask-token").open ? "" : failed ? "last update " + old + " ago" : "updated " + old + " ago";
    if (id("live").textContent !== text) id("live").textContent = text;
    id("live").className = "live " + (failed ? "off" : "on");
  };
  const lose = (why) => {
    failed = why;
    const text = "Connection lost (" + why + "). What you see is old.";
    if (id("lost").textContent !== text) id("lost").textContent = text;
    id("lost").hidden = false;
    id("state").classList.add("stale");
    age();
  };
  const find = () => {
    failed = "";
    last = Date.now();
    id("lost").hidden = true;
    id("lost").textContent = "";
    id("state").classList.remove("stale");
    age();
  };

  let headline = "";
  const announce = () => {
    const hero = id("hero");
    if (!hero) return;
    const marks = { critical: "● ", warning: "▲ " };
    document.title = (marks[hero.dataset.level] || "") + document.querySelector("h1").textContent;
    if (hero.dataset.headline !== headline) {
      headline = hero.dataset.headline;
      id("announce").textContent = headline;
    }
  };

  const show = (received) => {
    const selection = getSelection();
    if (selection && !selection.isCollapsed && id("state").contains(selection.anchorNode)) return false; // somebody copies
    const focused = id("state").contains(document.activeElement) ? document.activeElement : null;
    const focus = focused && (focused.id || focused.getAttribute("aria-labelledby"));
    const scrolled = all(".scroll").map((e) => [e.getAttribute("aria-labelledby"), e.scrollLeft]);
    id("state").replaceChildren(...received.body.childNodes);
    const region = (label) => label && all(".scroll").find((e) => e.getAttribute("aria-labelledby") === label);
    for (const [label, left] of scrolled) if (left && region(label)) region(label).scrollLeft = left;
    // Where a button is gone, because it did its work, what it was about gets the focus.
    if (focus) ((focused.id ? id(focus) : region(focus)) || id("state")).focus({ preventScroll: true });
    return true;
  };

  let timer = 0, busy = false, stateTag = "", acting = 0;
  const poll = async () => {
    clearTimeout(timer);
    if (busy || id("ask-token").open) return;
    busy = true;
    try {
      const x = await page("console/state" + scope, stateTag);
      if (x.status === 401) {
        stateTag = "";
        if (token) toast("The token is not valid.");
        id("ask-token").showModal();
        age();
        return;
      }
      if (x.status !== 200 && x.status !== 304) throw new Error("status " + x.status);
      if (x.status === 200 && x.response && show(x.response)) stateTag = x.getResponseHeader("ETag") || "";
      id("leave").hidden = !token;
      if (all(".plot").length && Date.now() >= chartsDue) {
        const response = await send("console/charts" + scope, { headers: drawnTag && { "If-None-Match": drawnTag } });
        if (response.status === 200) {
          drawn = await response.json();
          drawnTag = response.headers.get("ETag") || "";
        } else if (response.status !== 304) throw new Error("status " + response.status);
        chartsDue = Date.now() + Math.max(every, 1000 * drawn.step) - 500;
      }
      draw();
      announce();
      find();
    } catch (error) {
      lose(error.name === "TimeoutError" ? "no answer" : error.name === "TypeError" ? "no connection" : error.message);
    } finally {
      busy = false;
      const soon = acting > 0 || all('.proof[data-proven="false"]').length > 0;
      if (!document.hidden && !id("ask-token").open) timer = setTimeout(poll, soon ? hurried : every);
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
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  // ---- changes

  let pending = null, cause = "";
  id("state").addEventListener("submit", (event) => {
    const form = event.target.closest("form.act");
    if (!form) return;
    event.preventDefault();
    pending = { ...form.dataset };
    cause = form.querySelector("button").id;
    id("confirm-title").textContent = pending.heading;
    id("confirm-text").textContent = pending.text;
    id("confirm-yes").textContent = pending.verb;
    id("confirm-yes").classList.toggle("danger", form.querySelector("button").classList.contains("danger"));
    id("confirm-label").hidden = !pending.field;
    id("confirm-label").firstElementChild.textContent = pending.field;
    id("confirm-field").value = "";
    id("confirm").showModal();
  });
  id("confirm-no").addEventListener("click", () => id("confirm").close("")); // no submit button, so Enter in the field means yes
  id("confirm").addEventListener("close", () => { // the button that opened it may be gone meanwhile
    if (document.activeElement === document.body) (id(cause) || id("state")).focus({ preventScroll: true });
  });
  id("confirm").querySelector("form").addEventListener("submit", async () => {
    const what = pending;
    const options = { method: what.method };
    const text = id("confirm-field").value.trim();
    if (what.field && text) {
      options.headers = { "Content-Type": "application/json" };
      options.body = JSON.stringify({ [what.field]: text });
    }
    acting++;
    poll(); // the answer may take as long as the last instance does
    try {
      const response = await send(what.path, options);
      toast(response.ok ? "Done." : await problem(response));
    } catch (error) {
      toast("No answer: " + error.message + ". Look before you repeat it.");
    }
    acting--;
    poll();
  });

  // ---- begin

  new ResizeObserver(() => {
    for (const u of plots.values()) {
      const width = u.root.parentNode ? u.root.parentNode.clientWidth : 0;
      if (width && width !== u.width) u.setSize({ width, height: u.height });
    }
  }).observe(id("state"));
  document.addEventListener("visibilitychange", () => { clearTimeout(timer); if (!document.hidden) poll(); });
  setInterval(() => { if (!document.hidden) age(); }, 1000);
  if (id("charts")) {
    drawn = JSON.parse(id("charts").textContent);
    chartsDue = Date.now() + 1000 * drawn.step;
    requestAnimationFrame(() => setTimeout(draw)); // after the first paint, which shows their sketches
  }
  announce();
  if (id("hero")) {
    age();
    timer = setTimeout(poll, every);
  } else {
    poll();
  }
})();
