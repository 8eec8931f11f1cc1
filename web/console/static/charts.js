// The charts: numbers from the server, drawn by uPlot. Colours are the stylesheet's.
(() => {
  "use strict";
  const drawn = new WeakMap();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const words = { latency: (v) => (v == null ? "–" : v < 1000 ? `${v.toFixed(v < 10 ? 1 : 0)} ms` : `${(v / 1000).toFixed(1)} s`),
                  cost: (v) => (v == null ? "–" : `$${v.toFixed(2)}`), fleet: (v) => (v == null ? "–" : v.toLocaleString("en")) };

  const day = (at, [since, until]) => {
    const said = new Date(at * 1000).toISOString();
    return until - since > 90000 ? said.slice(5, 10) : said.slice(11, 16);
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
      const shown = names.map((name, n) => [name, n]).filter(([name]) => /^(waiting|applying) p(50|95)$|^whole p(50|95|99)$/.test(name));
      const dash = { waiting: [2, 3], applying: [6, 3], whole: [] };
      return { data: [columns[0], ...shown.map(([, n]) => columns[n + 1])], lines: shown.map(([name]) => ({
        label: name, stroke: colour({ p50: "--working", p95: "--waiting", p99: "--wrong" }[name.split(" ")[1]]),
        dash: dash[name.split(" ")[0]], width: 1.5, value: (_, v) => words.latency(v) })) };
    },
    cost: (names, columns) => ({ data: columns.slice(0, 2), lines: [{
      label: "USD", stroke: colour("--working"), fill: colour("--working-soft"), width: 1.5,
      paths: uPlot.paths.bars({ size: [0.8, 60] }), value: (_, v) => words.cost(v) }] }),
  };

  const draw = async (box) => {
    const name = box.dataset.chart;
    let numbers;
    try {
      const answer = await fetch(box.dataset.from, { credentials: "same-origin" });
      if (!answer.ok) return;
      numbers = await answer.json();
    } catch { return; } // there will be another time
    const { data, lines } = series[name](numbers.names, numbers.columns);
    box.classList.toggle("none", !data[0].length);
    const before = drawn.get(box);
    if (before) { before.ends = numbers.ends; before.setData(data); return; }
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const plot = new uPlot({
      width: box.clientWidth || 300, height: 220, series: [{ value: (_, v) => (v == null ? "–" : new Date(v * 1000).toISOString().slice(0, 16).replace("T", " ")) }, ...lines],
      tzDate: (at) => uPlot.tzDate(new Date(at * 1e3), "Etc/UTC"),
      axes: [{ ...axis, values: (_, all) => all.map((at) => day(at, numbers.ends)).map((said, n, before) => (said === before[n - 1] ? "" : said)) }, { ...axis, size: 64, values: (_, all) => all.map(words[name]) }],
      scales: { x: { range: (self) => self.ends || numbers.ends }, y: { range: (_, low, high) => [0, Math.max(high || 0, 1e-9) * 1.05] } },
    }, data, box);
    drawn.set(box, plot);
  };

  const all = () => document.querySelectorAll("[data-chart]").forEach(draw);
  let waiting = 0;
  document.addEventListener("charts", () => { waiting ||= setTimeout(() => { waiting = 0; all(); }, 5000); });
  addEventListener("resize", () => document.querySelectorAll("[data-chart]").forEach((box) => drawn.get(box)?.setSize({ width: box.clientWidth, height: 220 })));
  all();
})();
