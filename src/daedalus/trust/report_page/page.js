"use strict";
(function () {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const ink = "#475467", grid = "#eef1f6";
  const font = { family: "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif", size: 11.5, color: ink };
  const options = { displayModeBar: false, responsive: true };
  const palette = ["#2f6fde", "#8fb0ea", "#12a594", "#83d2c7", "#f5a524", "#f9d08a", "#7a5af8", "#bdb0fb",
    "#d6409f", "#f0a5d0", "#6b7a90", "#a9b4c4"];

  function layout(title, more) {
    return Object.assign({
      title: { text: title, x: 0.02, xanchor: "left", y: 0.96, font: { size: 13, color: "#1b2433" } },
      margin: { l: 52, r: 14, t: 38, b: 34 }, font: font, paper_bgcolor: "#fff", plot_bgcolor: "#fff",
      xaxis: { type: "category", gridcolor: grid, nticks: 7, tickangle: 0, fixedrange: true }, barmode: "stack", bargap: 0.18,
      yaxis: { gridcolor: grid, zerolinecolor: grid, fixedrange: true, automargin: true },
      legend: { orientation: "v", font: { size: 11 }, traceorder: "normal" }, hoverlabel: { font: { size: 12 } }
    }, more || {});
  }
  const short = day => day.slice(5);
  const percent = { tickformat: ".0%", gridcolor: grid, zerolinecolor: grid, fixedrange: true, rangemode: "tozero" };

  function rowsChart() {
    const traces = [{ type: "bar", name: "written", x: data.days.map(d => short(d.day)), y: data.days.map(d => d.rows),
      marker: { color: "#2f6fde" }, hovertemplate: "%{y:,} written<extra></extra>" }];
    data.filters.forEach((name, n) => traces.push({
      type: "bar", name: "dropped by " + name, x: data.days.map(d => short(d.day)), y: data.days.map(d => d.dropped[name] || 0),
      marker: { color: ["#f5a524", "#e5484d", "#7a5af8", "#12a594", "#d6409f", "#6b7a90"][n % 6] },
      hovertemplate: "%{y:,} dropped<extra>" + name.replace(/</g, "&lt;") + "</extra>" }));
    Plotly.newPlot("rows-chart", traces, layout("", { xaxis: { type: "category", gridcolor: grid, nticks: 18, tickangle: 0, fixedrange: true }, margin: { l: 60, r: 10, t: 12, b: 34 }, showlegend: true,
      legend: { orientation: "h", y: 1.12 }, hovermode: "x unified" }), options);
  }

  function valuesChart(box, column) {
    const bins = column.bins;
    const days = data.days.map(d => short(d.day));
    if (bins.ordered) {
      Plotly.newPlot(box, [{ type: "heatmap", x: days, y: bins.labels, z: bins.shares, xgap: 1, ygap: 1, zmin: 0,
        colorscale: [[0, "#f4f7fd"], [0.25, "#c6d8f7"], [0.6, "#6f9ceb"], [1, "#1f4fae"]],
        colorbar: { thickness: 8, len: 0.9, tickformat: ".0%", outlinewidth: 0, tickfont: { size: 10 } },
        hovertemplate: "%{x}<br>%{y}: %{z:.1%}<extra></extra>" }],
        layout(column.list ? "List lengths, share of rows" : "Values, share of rows",
          { yaxis: { type: "category", automargin: true, fixedrange: true, nticks: 12 },
            xaxis: { type: "category", nticks: 5, tickangle: 0, fixedrange: true } }), options);
    } else {
      const traces = bins.labels.map((label, n) => ({ type: "bar", name: label.length > 22 ? label.slice(0, 21) + "…" : label,
        x: days, y: bins.shares[n], marker: { color: label === "NULL" ? "#f3b3b0" : label === "other" ? "#d5dae3" : palette[n % palette.length] },
        hovertemplate: "%{y:.1%}<extra>" + label.replace(/</g, "&lt;") + "</extra>" }));
      Plotly.newPlot(box, traces, layout("Values, share of rows", { yaxis: Object.assign({}, percent, { range: [0, 1] }), showlegend: true }), options);
    }
  }

  function spreadChart(box, column) {
    const q = column.quantiles;
    const days = data.days.map(d => short(d.day));
    const band = (low, high, color, name) => [
      { x: days, y: q[low], mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false },
      { x: days, y: q[high], mode: "lines", line: { width: 0 }, fill: "tonexty", fillcolor: color, name: name, hoverinfo: "skip" }];
    const traces = [...band("p5", "p95", "rgba(47,111,222,0.13)", "5 to 95 %"), ...band("p25", "p75", "rgba(47,111,222,0.26)", "25 to 75 %"),
      { x: days, y: q.p50, mode: "lines+markers", line: { color: "#2f6fde", width: 2 }, marker: { size: 4 }, name: "median",
        customdata: q.p50.map((_, n) => [q.p5[n], q.p25[n], q.p75[n], q.p95[n]]),
        hovertemplate: "median %{y:.6g}<br>25 to 75 %: %{customdata[1]:.6g} to %{customdata[2]:.6g}<br>5 to 95 %: %{customdata[0]:.6g} to %{customdata[3]:.6g}<extra></extra>" },
      { x: days, y: column.mean, mode: "lines", line: { color: "#12a594", width: 1.5, dash: "dot" }, name: "mean", hovertemplate: "mean %{y:.6g}<extra></extra>" }];
    Plotly.newPlot(box, traces, layout(column.list ? "List length" : "Center and spread", { legend: { orientation: "h", y: -0.18, font: { size: 10.5 } },
      margin: { l: 56, r: 14, t: 38, b: 52 } }), options);
  }

  function driftChart(box, column) {
    const days = data.days.map(d => short(d.day));
    const colors = { stable: "#b8c4d9", moved: "#f5a524", shifted: "#e5484d" };
    const threshold = y => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: "#c0c8d6", width: 1, dash: "dot" } });
    const top = Math.max(0.3, ...column.psi.filter(v => v !== null)) * 1.1;
    const nulls = column.nulls.some(v => v > 0);
    const traces = [{ type: "bar", name: "PSI", x: days, y: column.psi, marker: { color: column.level.map(l => colors[l] || "#b8c4d9") },
      customdata: column.js.map((v, n) => [v, column.noise[n]]),
      hovertemplate: "PSI %{y:.3f}<br>Jensen-Shannon %{customdata[0]:.3f} bit<br>by chance up to %{customdata[1]:.3f}<extra></extra>" }];
    if (nulls) {
      traces.push({ x: days, y: column.nulls, name: "NULL rate", yaxis: "y2", mode: "lines+markers", marker: { size: 4 },
        line: { color: "#c4323a", width: 1.5 }, hovertemplate: "NULL %{y:.1%}<extra></extra>" });
    }
    Plotly.newPlot(box, traces, layout("Drift from the day before" + (nulls ? ", and NULL rate" : ""), {
      yaxis: { gridcolor: grid, zerolinecolor: grid, range: [0, top], fixedrange: true, title: { text: "PSI", font: { size: 11 } } },
      yaxis2: { overlaying: "y", side: "right", range: [0, 1.02], dtick: 0.25, tickformat: ".0%", showgrid: false, fixedrange: true },
      margin: { l: 52, r: nulls ? 46 : 14, t: 38, b: 34 }, showlegend: false, shapes: [threshold(0.1), threshold(0.25)] }), options);
  }

  function open(row) {
    const detail = row.nextElementSibling, now = detail.hidden;
    detail.hidden = !now;
    row.classList.toggle("open", now);
    row.setAttribute("aria-expanded", String(now));
    if (!now || detail.dataset.drawn) { return; }
    detail.dataset.drawn = "yes";
    const column = data.columns[row.dataset.index], place = detail.querySelector(".charts");
    const wanted = [[valuesChart, column.bins], [spreadChart, column.quantiles],
      [driftChart, data.days.length > 1]].filter(([, has]) => has).map(([draw]) => draw);
    const boxes = wanted.map(() => document.createElement("div"));
    boxes.forEach(box => { box.className = "chart"; place.append(box); });
    wanted.forEach((draw, n) => draw(boxes[n], column));
  }

  const rows = [...document.querySelectorAll("tr.column")];
  rows.forEach(row => {
    row.addEventListener("click", () => open(row));
    row.addEventListener("keydown", event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(row); } });
  });
  const search = document.getElementById("search"), flagged = document.getElementById("flagged");
  function sift() {
    const text = search.value.trim().toLowerCase();
    rows.forEach(row => {
      const shown = (!text || row.dataset.text.includes(text)) && (!flagged.checked || row.dataset.flagged === "yes");
      row.hidden = !shown;
      if (!shown) { row.nextElementSibling.hidden = true; row.classList.remove("open"); }
    });
  }
  search.addEventListener("input", sift);
  flagged.addEventListener("change", sift);
  function show(hash) {
    const row = hash.startsWith("#column-") && document.getElementById(hash.slice(1));
    if (row) { if (!row.classList.contains("open")) { open(row); } row.scrollIntoView({ block: "center" }); }
  }
  document.querySelectorAll("a[href^='#column-']").forEach(link => link.addEventListener("click", () => show(link.getAttribute("href"))));

  /* ---------------------------------------------------------------- lineage */
  const svg = document.getElementById("lineage"), says = document.getElementById("lineage-says"), graph = data.graph;
  const idle = says.textContent;
  let pinned = null;
  function clear() {
    svg.classList.remove("picked");
    svg.querySelectorAll(".on, .at").forEach(one => {
      one.classList.remove("on", "at");
      if (one.dataset.role) { one.setAttribute("class", one.dataset.role); }
    });
    says.textContent = idle;
  }
  function light(edges) {
    edges.forEach(([number, role]) => {
      const path = document.getElementById("e" + number);
      path.dataset.role = path.dataset.role || path.getAttribute("class");
      path.setAttribute("class", "edge on " + role);
      graph.links[number].forEach(end => document.getElementById("b" + end).classList.add("on"));
    });
  }
  function label(number) { return document.querySelector("#b" + number + " title").textContent; }
  function tell(parts) {
    says.textContent = "";
    parts.forEach(([text, strong]) => {
      const one = document.createElement(strong ? "b" : "span");
      one.textContent = text;
      says.append(one);
    });
  }
  function pick(number) {
    clear();
    svg.classList.add("picked");
    document.getElementById("b" + number).classList.add("on", "at");
    const own = graph.outputs[number];
    if (own) {
      light(own.edges);
      const by = {};
      Object.entries(own.origins).forEach(([origin, role]) => (by[role] = by[role] || []).push(label(origin)));
      tell([[label(number), true], [" is made from  ", false], ...["value", "key", "filter", "time"].filter(role => by[role])
        .flatMap(role => [[role + " ", true], [by[role].join(", ") + "   ", false]])]);
      return;
    }
    const reach = new Set([Number(number)]);
    for (let grown = true; grown;) {
      grown = false;
      graph.links.forEach(([a, b]) => { if (reach.has(a) && !reach.has(b)) { reach.add(b); grown = true; } });
    }
    const operator = document.getElementById("b" + number).classList.contains("operator");
    const targets = Object.entries(graph.outputs).filter(([, one]) => operator
      ? one.edges.some(([edge]) => graph.links[edge].includes(Number(number))) : number in one.origins);
    targets.forEach(([target, one]) => {
      light(one.edges.filter(([edge]) => graph.links[edge].every(end => reach.has(end))));
      document.getElementById("b" + target).classList.add("on");
    });
    const name = operator ? document.querySelector("#b" + number + " text").textContent : label(number);
    tell([[name, true], [targets.length ? " reaches " : " reaches nothing", false],
      [targets.map(([target, one]) => (target in graph.outputs ? label(target).split(":").pop().replace("*", "which rows there are") : "")
        + (operator ? "" : " (" + one.origins[number] + ")")).join(", "), false]]);
  }
  svg.querySelectorAll(".box").forEach(box => {
    const number = box.id.slice(1);
    box.addEventListener("mouseenter", () => { if (pinned === null) { pick(number); } });
    box.addEventListener("mouseleave", () => { if (pinned === null) { clear(); } });
    box.addEventListener("click", event => {
      event.stopPropagation();
      pinned = pinned === number ? null : number;
      if (pinned === null) { clear(); } else { pick(number); }
    });
    box.addEventListener("keydown", event => { if (event.key === "Enter") { pinned = number; pick(number); } });
  });
  svg.addEventListener("click", () => { pinned = null; clear(); });

  rowsChart();
  show(location.hash);
}());
