// The charts: numbers from the server, drawn by uPlot. Colours are the stylesheet's.
(() => {
  "use strict";
  const drawn = new WeakMap(); // of each box: its plot, and the numbers that it shows
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const grouped = (v, digits) => v.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const words = { latency: (v) => (v == null ? "–" : v < 999.5 ? `${v.toFixed(v < 9.95 ? 1 : 0)} ms` : `${(v / 1000).toFixed(1)} s`),
                  cost: (v) => (v == null ? "–" : v && v < 0.01 ? `$${+v.toPrecision(2)}` : `$${grouped(v, 2)}`),
                  fleet: (v) => (v == null ? "–" : v.toLocaleString("en")) };

  // On an axis there is room for few letters: what is large is shortened, to as many digits as tell two ticks apart.
  const UNITS = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1, ""]];
  const short = (sign, least) => (all, step) => {
    const [unit, letter] = UNITS.find(([size]) => all[all.length - 1] >= size) || [1, ""];
    const apart = ((step / unit).toFixed(10).replace(/0+$/, "").split(".")[1] || "").length;
    const digits = Math.max(apart, letter ? 1 : apart && least);
    return all.map((v) => (v ? `${sign}${grouped(v / unit, digits)}${letter}` : `${sign}0`));
  };
  const ticks = { latency: (all) => all.map(words.latency), cost: short("$", 2), fleet: short("", 0) };
  const whole = Array.from({ length: 13 }, (_, n) => [1, 2, 5].map((first) => first * 10 ** n)).flat(); // there are no half agents
  const nothing = { latency: 10, cost: 0.01, fleet: 1 }; // what an axis goes to where there is nothing to show
  const wide = (_, all) => 20 + 7 * Math.max(3, ...(all || []).map((said) => said.length));

  const day = (at, [since, until]) => {
    const said = new Date(at * 1000).toISOString();
    if (until - since <= 90000) return said.slice(11, 16);
    return at % 86400 ? "" : said.slice(5, 10); // a date is the midnight that it begins with
  };

  // A bar is as wide as its bin where each bin has a place, also those in which there was nothing.
  const placed = ([times, values], { ends: [since, until], step }) => {
    const at = new Map(times.map((time, n) => [time, values[n]])), all = [];
    for (let time = Math.floor(since / step) * step; time < until; time += step) all.push(time);
    return [all, all.map((time) => at.get(time) ?? null)];
  };

  const series = {
    // Each status lies upon those before it: what is drawn is their sum, what is told is its own number.
    fleet: (names, columns) => {
      const sums = columns.slice(1).map((column) => [...column]);
      for (let row = sums.length - 2; row >= 0; row--) sums[row] = sums[row].map((v, n) => v + sums[row + 1][n]);
      return { data: [columns[0], ...sums], lines: names.map((name, n) => ({
        label: name, stroke: colour(`--${name}`), fill: colour(`--${name}-soft`), width: 1, points: { show: false },
        value: (_, __, ___, at) => (at == null ? "–" : words.fleet(columns[n + 1][at])) })) };
    },
    latency: (names, columns) => {
      const dash = { waiting: [2, 3], applying: [6, 3], whole: [] };
      return { data: columns, lines: names.map((name) => ({
        label: name, stroke: colour({ p50: "--working", p95: "--waiting", p99: "--wrong" }[name.split(" ")[1]]),
        dash: dash[name.split(" ")[0]], width: 1.5, value: (_, v) => words.latency(v) })) };
    },
    cost: (names, columns, numbers) => ({ data: placed(columns, numbers), lines: [{
      label: "USD", stroke: colour("--working"), fill: colour("--working-soft"), width: 1.5, points: { show: false },
      paths: uPlot.paths.bars({ size: [0.8], align: 1 }), value: (_, v) => words.cost(v) }] }),
  };

  const made = (box, numbers, data, lines) => {
    const name = box.dataset.chart;
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    return new uPlot({
      width: box.clientWidth || 300, height: 220, series: [{ value: (_, v) => (v == null ? "–" : new Date(v * 1000).toISOString().slice(0, 16).replace("T", " ")) }, ...lines],
      legend: { markers: { dash: (self, n) => ({ 2: "dotted", 6: "dashed" })[self.series[n].dash?.[0]] || "solid" } },
      tzDate: (at) => uPlot.tzDate(new Date(at * 1e3), "Etc/UTC"),
      axes: [{ ...axis, values: (_, all) => all.map((at) => day(at, numbers.ends)).map((said, n, before) => (said === before[n - 1] ? "" : said)) },
             { ...axis, size: wide, ...(name === "fleet" ? { incrs: whole } : {}), values: (_, all, __, ___, step) => ticks[name](all, step) }],
      scales: { x: { range: (self) => self.ends || numbers.ends }, y: { range: (_, low, high) => [0, (high || nothing[name]) * 1.05] } },
    }, data, box);
  };

  const show = (box, numbers) => {
    const { data, lines } = series[box.dataset.chart](numbers.names, numbers.columns, numbers);
    box.classList.toggle("none", !numbers.columns[0].length);
    const plot = drawn.get(box)?.plot;
    if (plot) { plot.ends = numbers.ends; plot.setData(data); }
    drawn.set(box, { plot: plot || made(box, numbers, data, lines), numbers });
  };

  const draw = async (box) => {
    let numbers;
    try {
      const answer = await fetch(box.dataset.from, { credentials: "same-origin" });
      if (!answer.ok) return;
      numbers = await answer.json();
    } catch { return; } // there will be another time
    show(box, numbers);
  };

  // A plot keeps the colours that it was made with.
  const repaint = (box) => {
    const before = drawn.get(box);
    if (!before) return;
    before.plot.destroy();
    drawn.delete(box);
    show(box, before.numbers);
  };

  const all = (act) => document.querySelectorAll("[data-chart]").forEach(act);
  let waiting = 0;
  document.addEventListener("charts", () => { waiting ||= setTimeout(() => { waiting = 0; all(draw); }, 5000); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => all(repaint));
  addEventListener("resize", () => all((box) => drawn.get(box)?.plot.setSize({ width: box.clientWidth, height: 220 })));
  all(draw);
})();
