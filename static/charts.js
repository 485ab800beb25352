/* Charts: columns of numbers from the server, drawn by uPlot. One cursor and one window a page. */
(() => {
  "use strict";
  const plots = [];
  const probe = document.createElement("i");
  let colours = {};
  probe.hidden = true;
  document.body.append(probe);

  /* A token's colour as the canvas needs it: resolved, for the theme that is on now. */
  const TOKENS = { text: "--text-2", grid: "--grid", mark: "--text-3", gap: "--track" };
  const colour = (name) => {
    if (!(name in colours)) {
      probe.style.color = `var(${TOKENS[name] ?? `--w-${name}`})`;
      colours[name] = getComputedStyle(probe).color;
    }
    return colours[name];
  };

  const trim = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(1).replace(/\.0$/, ""));
  const scaled = (value, steps, last) => {
    for (const [size, name] of steps) if (Math.abs(value) >= size) return `${trim(value / size)}\u00a0${name}`;
    return last(value);
  };
  const SHORT = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const SIZES = [[2 ** 40, "TB"], [2 ** 30, "GB"], [2 ** 20, "MB"], [2 ** 10, "kB"]];
  const plain = (value) => (Number.isInteger(value) ? String(value) : value < 1 ? value.toFixed(2) : trim(value));
  const UNITS = {
    rows: (value) => scaled(value, SHORT, plain),
    count: (value) => scaled(value, SHORT, plain),
    age: (value) => scaled(value, SHORT, plain),
    bytes: (value) => scaled(value, SIZES, (small) => `${small.toFixed(0)}\u00a0B`),
    per_s: (value) => `${scaled(value, SHORT, plain)}/s`,
    ms: (value) => scaled(value, [[60000, "min"], [1000, "s"]], (small) => `${small < 1 ? Number(small.toPrecision(2)) : trim(small)}\u00a0ms`),
  };
  const writer = (unit) => {
    const write = UNITS[unit] ?? UNITS.count;
    return (value) => (value == null ? "\u2013" : write(value));
  };
  const clock = new Intl.DateTimeFormat("en-GB", {
    day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit",
  });
  const when = (seconds) => (seconds == null ? "" : clock.format(seconds * 1000));

  /* The window stands in the address: another window is another address. */
  const show = (from, to) => {
    const url = new URL(location);
    for (const word of ["window", "at", "page"]) url.searchParams.delete(word);
    url.searchParams.set("from", Math.floor(from));
    url.searchParams.set("to", Math.ceil(to));
    location.assign(url);
  };
  const back = () => {
    const url = new URL(location);
    if (!url.searchParams.has("from")) return;
    for (const word of ["from", "to"]) url.searchParams.delete(word);
    location.assign(url);
  };

  /* Cumulative columns, top layer first: each is painted down to 0 and the next paints over it.
     A row is null in all columns or in none, so a gap stays a gap. */
  const stacked = (columns) => {
    const sum = columns[0].map(() => 0);
    return columns.map((column) => column.map((value, i) => (value == null ? null : (sum[i] += value)))).reverse();
  };

  const SHAPES = {
    vacuum: "M0-4 4.500 4H-4.500Z", action: "M0-5.500 5.500 0 0 5.500-5.500 0Z", restart: "M0 4.500 4.500-4H-4.500Z",
    crash: "M-4-4 4 4M4-4-4 4", reset: "M-4.500 0a4.500 4.500 0 1 0 9 0a4.500 4.500 0 1 0-9 0Z", promotion: "M-4-4H4V4H-4Z", rewrite: "M-5-2H5V2H-5Z", upgrade: "M-4-4H4V4H-4Z",
    setting: "M-2.500-5H2.500L5 0 2.500 5H-2.500L-5 0Z",
    stuck: "M-4-1H-2.500V-5H2.500V-1H4V5H-4Z",
  };
  const shape = (kind) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    svg.setAttribute("viewBox", "-7 -7 14 14");
    svg.setAttribute("aria-hidden", "true");
    path.setAttribute("d", SHAPES[kind] ?? SHAPES.reset);
    svg.append(path);
    return svg;
  };

  /* Marks: a line through every chart; above the first one, a button each. */
  const laneOf = (box, spec) => {
    if (!("lane" in box.dataset) || !spec.marks.length) return null;
    const lane = document.createElement("div");
    lane.className = "lane";
    box.before(lane);
    const buttons = spec.marks.map((mark) => {
      const button = document.createElement(mark.url ? "a" : "button");
      if (mark.url) button.href = mark.url; else button.type = "button";
      button.className = "mark-button";
      button.dataset.kind = mark.kind;
      button.append(shape(mark.kind));
      lane.append(button);
      return button;
    });
    return { lane, buttons };
  };
  /* Marks too near to be told apart share the button of the most telling one, which names them all. */
  const TELLING = ["crash", "action", "restart", "promotion", "upgrade", "rewrite", "stuck", "setting", "reset", "vacuum"];
  const APART = 24;
  const place = (u, spec, row) => {
    if (!row) return;
    const groups = [];
    spec.marks.forEach((mark, i) => {
      const x = u.valToPos(mark.t, "x");
      row.buttons[i].hidden = true;
      if (x < 0 || x > u.over.clientWidth) return;
      if (groups.length && x - groups.at(-1).x < APART) groups.at(-1).members.push(i);
      else groups.push({ x, members: [i] });
    });
    const rank = (i) => TELLING.indexOf(spec.marks[i].kind);
    for (const { x, members } of groups) {
      const shown = row.buttons[members.toSorted((i, j) => rank(i) - rank(j))[0]];
      shown.hidden = false;
      shown.title = members.map((i) => `${when(spec.marks[i].t)}: ${spec.marks[i].text}`).join("\n");
      shown.setAttribute("aria-label", shown.title);
      if (members.length > 1) shown.dataset.count = members.length; else delete shown.dataset.count;
      shown.style.transform = `translateX(${Math.round(u.over.offsetLeft + x)}px)`;
    }
  };
  const lined = (u, x, dash, name) => {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.strokeStyle = colour(name);
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash(dash.map((part) => part * devicePixelRatio));
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.restore();
  };
  const drawMarks = (u, spec) => {
    for (const mark of spec.marks) {
      if (mark.kind === "vacuum") continue;
      const x = Math.round(u.valToPos(mark.t, "x", true)) + 0.5;
      if (x >= u.bbox.left && x <= u.bbox.left + u.bbox.width) lined(u, x, mark.kind === "crash" ? [] : [2, 3], "mark");
    }
  };
  const drawLimits = (u, spec) => {
    const { ctx, bbox } = u;
    for (const line of spec.lines) {
      if (line.value > u.scales.y.max) continue;
      const y = Math.round(u.valToPos(line.value, "y", true)) + 0.5;
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = colour("text");
      ctx.lineWidth = devicePixelRatio;
      ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      ctx.restore();
    }
  };

  const TICKS = [
    [86400, "{D} {MMM}", null, null, null, null, null, null, 1],
    [3600, "{HH}:{mm}", null, null, "{D} {MMM}", null, null, null, 1],
    [60, "{HH}:{mm}", null, null, null, null, null, null, 1],
    [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1],
  ];
  /* The last value of a line, unless the line ended long before the others. */
  const newest = (column) => column.slice(-Math.max(2, Math.ceil(column.length / 20))).findLast((value) => value != null);
  /* Steps of an axis that read well in bytes: 1, 2, 5, 10, … of each unit. */
  const BYTES = [1, 2 ** 10, 2 ** 20, 2 ** 30, 2 ** 40].flatMap((size) => [1, 2, 5, 10, 20, 50, 100, 200, 500].map((step) => step * size));
  const NONE = { left: 0, width: 0, top: 0, height: 0 };

  /* A limit far above the figures would flatten them: it is then only named in the legend, unless it is always to be seen. */
  const top = (spec, greatest) => {
    const limits = spec.lines.filter((line) => line.always || line.value <= 3 * greatest).map((line) => line.value);
    return Math.max(greatest, ...limits, { per_s: 0.1, ms: 0.01 }[spec.unit] ?? 1) * 1.08;
  };

  const draw = (box) => {
    const spec = JSON.parse(document.getElementById(box.dataset.chart).content.textContent);
    const figure = box.closest("figure");
    const outputs = [...figure.querySelectorAll(".legend output")];
    const time = figure.querySelector(".chart-time");
    const write = writer(spec.unit);
    const values = spec.series.map((one) => one.values);
    const drawn = spec.stack ? stacked(values) : values;
    const shown = spec.stack ? spec.series.toReversed() : spec.series;
    const row = laneOf(box, spec);
    const axis = { stroke: () => colour("text"), grid: { stroke: () => colour("grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const first = spec.from ?? spec.x[0];
    const last = spec.to ?? spec.x.at(-1);

    const read = (u) => {
      const i = u.cursor.idx;
      outputs.forEach((output, s) => { output.value = write(i == null ? newest(values[s]) : values[s][i]); });
      time.textContent = i == null ? "" : when(spec.x[i]);
    };
    const u = new uPlot({
      width: Math.max(box.clientWidth, 120), height: box.clientHeight, legend: { show: false }, padding: [8, 26, 0, 0],
      drawOrder: spec.stack ? ["series", "axes"] : ["axes", "series"],
      scales: { x: { range: () => [first, last] }, y: { range: (_u, _low, high) => [0, top(spec, high || 0)] } },
      axes: [
        { ...axis, space: 64, size: 24, values: TICKS },
        { ...axis, size: 54, space: 28, incrs: spec.unit === "bytes" ? BYTES : undefined, values: (_u, ticks) => ticks.map(write) },
      ],
      series: [{}, ...shown.map((one) => ({
        stroke: () => colour(one.colour), width: spec.stack ? 0 : 1.5, fill: spec.stack ? () => colour(one.colour) : undefined,
        points: { show: false, size: 5, filter: spec.stack ? undefined : alone },
      }))],
      cursor: {
        y: false, points: { show: !spec.stack }, sync: { key: "page", scales: ["x", null] },
        drag: { x: true, y: false, setScale: false, dist: 6 }, bind: { dblclick: () => () => { back(); return null; } },
      },
      hooks: {
        ready: [read, (self) => place(self, spec, row)],
        setCursor: [read],
        setSize: [(self) => place(self, spec, row)],
        setSelect: [(self) => {
          const { left, width } = self.select;
          if (width > 5) show(self.posToVal(left, "x"), self.posToVal(left + width, "x"));
        }],
        draw: [(self) => { drawLimits(self, spec); drawMarks(self, spec); }],
      },
    }, [spec.x, ...drawn], box);
    const sized = new ResizeObserver(() => u.setSize({ width: Math.max(box.clientWidth, 120), height: box.clientHeight }));
    sized.observe(box);
    plots.push({ u, box, sized });
    keys(u, box, spec, figure, write);
  };

  /* A value between gaps has no line: it is drawn as a point, or nobody would see it. */
  const alone = (u, s) => {
    const values = u.data[s];
    return values.flatMap((value, i) => (value != null && values[i - 1] == null && values[i + 1] == null ? [i] : []));
  };

  /* Keyboard: arrows move the cursor, Shift and arrows choose, Enter shows that window, Escape goes back. */
  const keys = (u, box, spec, figure, write) => {
    const said = figure.querySelector("[data-speaks]");
    const x = spec.x;
    let from = null;
    const unselect = () => { from = null; u.setSelect(NONE, false); };
    const move = (step, chooses) => {
      const here = u.cursor.idx ?? x.length - 1;
      const i = Math.max(0, Math.min(x.length - 1, here + step));
      if (chooses) from ??= here; else unselect();
      u.setCursor({ left: u.valToPos(x[i], "x"), top: 10 }, true, true);
      if (from != null) {
        const [left, right] = [u.valToPos(x[from], "x"), u.valToPos(x[i], "x")].sort((a, b) => a - b);
        u.setSelect({ left, width: right - left, top: 0, height: u.over.clientHeight }, false);
      }
      said.textContent = `${when(x[i])}: ${spec.series.map((one) => `${one.label} ${write(one.values[i])}`).join(", ")}`;
    };
    box.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
      if (step) {
        event.preventDefault();
        move(step, event.shiftKey);
      } else if (event.key === "Escape") {
        if (from == null) back(); else unselect();
      } else if (event.key === "Enter" && from != null) {
        const [a, b] = [x[from], x[u.cursor.idx]].sort((p, q) => p - q);
        if (b > a) show(a, b);
      }
    });
  };

  const drawAll = () => {
    for (let i = plots.length - 1; i >= 0; i -= 1) {
      const { u, box, sized } = plots[i];
      if (u.root.isConnected) continue;
      sized.disconnect();
      u.destroy();
      plots.splice(i, 1);
      // A refresh emptied it and left its listeners: they would hear each key twice.
      if (box.isConnected) box.replaceWith(box.cloneNode(false));
    }
    for (const box of document.querySelectorAll("[data-chart]")) {
      if (!box.querySelector(".uplot")) draw(box);
    }
  };
  const repaint = () => { colours = {}; for (const { u } of plots) u.redraw(false); };
  new MutationObserver(repaint).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  document.addEventListener("htmx:afterSwap", drawAll);
  for (const holder of document.querySelectorAll(".mark-shape")) holder.replaceChildren(shape(holder.dataset.kind));
  document.addEventListener("htmx:afterSwap", () => {
    for (const holder of document.querySelectorAll(".mark-shape:empty")) holder.replaceChildren(shape(holder.dataset.kind));
  });
  drawAll();
})();
