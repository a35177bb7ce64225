/* The coupling graph: folded into bands that fill its box, like lines of text, left to right. */
const drawn = content.graph;
const GAP = 1.6; // between two bands, in units of a node
const BIG = 1500; // more nodes and edges than this are drawn on a canvas
const LETTER = 6.4; // pixels that a letter of a label takes
let selected = { node: null, groups: [] };

function fold(width, height) {
  const layers = 1 + Math.max(...drawn.nodes.map((n) => n.at[0]));
  const points = drawn.nodes.map((n) => n.at).concat(...drawn.edges.map((e) => e[2]));
  const low = new Array(layers).fill(Infinity), high = new Array(layers).fill(-Infinity);
  for (const [x, y] of points) {
    low[x] = Math.min(low[x], y);
    high[x] = Math.max(high[x], y);
  }
  let best = null;
  for (let bands = 1; bands <= Math.min(layers, 24); bands++) {
    const columns = Math.ceil(layers / bands), tops = [], bottoms = [];
    for (let start = 0; start < layers; start += columns) {
      tops.push(Math.min(...low.slice(start, start + columns)));
      bottoms.push(Math.max(...high.slice(start, start + columns)));
    }
    const tall = tops.reduce((sum, top, i) => sum + bottoms[i] - top + GAP, 0);
    const scale = Math.min(width / (columns + 1), height / (tall + 0.5));
    if (!best || scale > best.scale * 1.05) best = { scale, columns, tops, bottoms, tall };
  }
  /* Height that is left over goes between the bands. */
  const rest = Math.max(0, height / best.scale - 0.5 - best.tall) / best.tops.length;
  best.gap = GAP + Math.min(rest, 2 * GAP);
  best.tall += (best.gap - GAP) * best.tops.length;
  let y = best.gap / 2;
  best.starts = best.tops.map((top, i) => {
    const start = y - top;
    y += best.bottoms[i] - top + best.gap;
    return start;
  });
  return best;
}

function band(view, layer) {
  return Math.floor(layer / view.columns);
}

function placed(view, [x, y]) {
  const row = band(view, x);
  return [x - row * view.columns + 0.5, y + view.starts[row]];
}

/* The line of an edge; from one band to the next it runs in the gap between them. */
function path(view, from, to, route) {
  const stops = [drawn.nodes[from].at, ...route, drawn.nodes[to].at];
  const found = [placed(view, stops[0])];
  for (let i = 1; i < stops.length; i++) {
    const [a, b] = [stops[i - 1], stops[i]];
    const between = (x) => [x, a[1] + ((b[1] - a[1]) * (x - a[0])) / (b[0] - a[0])];
    for (let row = band(view, a[0]); row < band(view, b[0]); row++) {
      const edge = (row + 1) * view.columns;
      const last = placed(view, between(Math.max(a[0], edge - 1))), next = placed(view, between(edge));
      const middle = view.starts[row] + view.bottoms[row] + view.gap / 2;
      found.push(last, [view.columns, last[1]], [view.columns, middle], [0, middle], [0, next[1]], next);
    }
    found.push(placed(view, b));
  }
  return found;
}

function prunableGroup(id) {
  return content.groups.find((g) => g.id === id && g.prunable);
}

function toneOf(node) {
  const group = node.groups.find(prunableGroup);
  return group === undefined ? colour("frozen") : groupColour(group);
}

function lit(node) {
  if (!selected.groups.length && selected.node === null) return true;
  return node.groups.some((g) => selected.groups.includes(g)) || node.reads.some((g) => selected.groups.includes(g));
}

function drawNetwork(chart) {
  const view = fold(chart.getWidth() - 16, chart.getHeight() - 16);
  const { option } = base();
  const shares = (list) => list.some((g) => selected.groups.includes(g));
  const chosen = selected.groups.length > 0;
  const room = view.scale * closeness(chart), size = Math.max(4, Math.min(16, room * 0.5));
  const point = (node, id) => {
    const on = id === selected.node || lit(node), ring = chosen && !shares(node.groups) && shares(node.reads);
    return {
      value: placed(view, node.at), id, name: node.name,
      symbol: node.op === "input" || node.op === "output" ? "rect" : node.reason ? "diamond" : "circle",
      symbolSize: id === selected.node ? size * 1.6 : size,
      itemStyle: {
        color: ring || node.gone ? colour("page") : toneOf(node), opacity: on ? 1 : 0.18,
        borderWidth: id === selected.node ? 3 : ring ? 2.5 : node.gone ? 1.5 : 0, borderType: node.gone ? "dotted" : "solid",
        borderColor: id === selected.node ? colour("lit") : ring ? groupColour(selected.groups[0]) : toneOf(node),
      },
      label: { show: on && node.op.length * LETTER < room },
    };
  };
  const inGroup = (e) => chosen && shares(drawn.nodes[e[0]].groups) && lit(drawn.nodes[e[1]]);
  const polyline = (edges) => edges.flatMap((e) => [...path(view, ...e), [null, null]]);
  const wires = (name, edges, style) => ({
    name, type: "line", data: polyline(edges), symbol: "none", silent: true, lineStyle: style, animation: false, z: 1,
  });
  const span = { x: view.columns + 0.5, y: Math.max(view.tall, 1) };
  /* What is left over becomes a margin, where stretching would tear layers too far apart. */
  const wide = Math.max(span.x, (chart.getWidth() - 16) / view.scale / 1.5), high = Math.max(span.y, (chart.getHeight() - 16) / view.scale);
  const hidden = { type: "value", show: false };
  chart.setOption({
    ...option,
    aria: { enabled: false },
    legend: { show: false },
    grid: { left: 8, right: 8, top: 8, bottom: 8, containLabel: false },
    xAxis: { ...hidden, min: (span.x - wide) / 2, max: (span.x + wide) / 2 },
    yAxis: { ...hidden, inverse: true, min: (span.y - high) / 2, max: (span.y + high) / 2 },
    dataZoom: ["xAxisIndex", "yAxisIndex"].map((axis) => ({
      type: "inside", [axis]: 0, filterMode: "none", zoomOnMouseWheel: "ctrl", moveOnMouseMove: true,
      moveOnMouseWheel: false, minSpan: 1,
    })),
    tooltip: {
      ...option.tooltip, trigger: "item",
      formatter: (p) => lines(p.data.name, drawn.nodes[p.data.id].op, drawn.nodes[p.data.id].reason),
    },
    series: [
      wires("edges", drawn.edges.filter((e) => !inGroup(e)), { color: colour("soft"), width: 1, opacity: chosen ? 0.25 : 0.55 }),
      wires("lit edges", drawn.edges.filter(inGroup), { color: groupColour(selected.groups[0] || 0), width: 2.5 }),
      {
        name: "nodes", type: "scatter", data: drawn.nodes.map(point), z: 3, cursor: "pointer",
        label: {
          position: "bottom", distance: 3, color: colour("ink"), fontSize: 11,
          formatter: (p) => drawn.nodes[p.data.id].op,
        },
      },
    ],
  }, { replaceMerge: ["series"] });
}

/* How many times larger than in the whole picture. */
function closeness(chart) {
  const zoom = (chart.getOption()?.dataZoom || [])[0];
  return zoom ? 100 / Math.max(zoom.end - zoom.start, 1) : 1;
}

function select(node, groups, centre) {
  selected = { node, groups };
  const { chart } = charts.get("graph-chart");
  drawNetwork(chart);
  describe();
  if (centre && node !== null) centreOn(chart, node);
}

function zooms(chart) {
  return chart.getOption().dataZoom.map(({ start, end }) => [start, end]);
}

function setZooms(chart, spans) {
  chart.dispatchAction({ type: "dataZoom", batch: spans.map(([start, end], dataZoomIndex) => ({ dataZoomIndex, start, end })) });
}

function zoomBy(factor) {
  const { chart } = charts.get("graph-chart");
  setZooms(chart, zooms(chart).map(([start, end]) => {
    const half = Math.min(50, ((end - start) / 2) * factor), middle = Math.min(100 - half, Math.max(half, (start + end) / 2));
    return [middle - half, middle + half];
  }));
}

/* Moves to a node, close enough that it stands apart. */
function centreOn(chart, id) {
  const [xAxis, yAxis] = ["xAxis", "yAxis"].map((name) => chart.getOption()[name][0]);
  const [x, y] = placed(fold(chart.getWidth() - 16, chart.getHeight() - 16), drawn.nodes[id].at);
  const half = Math.min(50, 100 * Math.min(0.5, 7 / (xAxis.max - xAxis.min)));
  const at = (v, axis) => Math.min(100 - half, Math.max(half, (100 * (v - axis.min)) / (axis.max - axis.min)));
  setZooms(chart, [at(x, xAxis), at(y, yAxis)].map((p) => [p - half, p + half]));
}

function make(tag, said, parent) {
  const element = document.createElement(tag);
  if (said !== undefined) element.textContent = said;
  if (parent) parent.append(element);
  return element;
}

function facts(parent, pairs) {
  const list = make("dl", undefined, parent);
  for (const [name, said] of pairs) {
    make("dt", name, list);
    make("dd", said, list);
  }
}

function describeNode(panel, id) {
  const node = drawn.nodes[id];
  make("h3", node.name, panel);
  facts(panel, [["operator", node.op], ...(node.gone ? [["removed", "with its branch"]] : []), ...(node.reason ? [["stays", node.reason]] : [])]);
}

function describeGroup(panel, id) {
  const group = content.groups.find((g) => g.id === id);
  const title = make("h3", undefined, panel);
  const swatch = make("span", undefined, title);
  swatch.className = "swatch";
  swatch.style.background = group.prunable ? groupColour(id) : colour("frozen");
  title.append(`Group ${id}: ${group.name}`);
  facts(panel, [
    ["channels", `${number(group.channels)}${group.prunable ? "" : ", none prunable"}`],
    ...(group.prunable && group.frozen_channels ? [["frozen", number(group.frozen_channels)]] : []),
    ...(content.done && group.prunable ? [["kept", number(group.channels - group.removed)], ["removed", number(group.removed)]] : []),
    ["params/channel", number(group.params_per_channel)],
    ["MACs/channel", number(group.macs_per_channel)],
    ...(group.reason ? [["stays", group.reason]] : []),
  ]);
  const more = make("details", undefined, panel);
  more.open = group.members.length <= 12;
  make("summary", `${group.members.length} tensor axes`, more);
  const list = make("ul", undefined, more);
  for (const member of group.members) make("li", `${member.tensor}[${member.axis}], ${member.size}`, list);
}

function describe() {
  const panel = document.getElementById("panel");
  panel.replaceChildren();
  if (selected.node !== null) describeNode(panel, selected.node);
  for (const id of selected.groups) describeGroup(panel, id);
  if (!panel.childElementCount) make("p", "Nothing is selected.", panel);
}

/* All that the node's channels belong to; of one without any, what its weights read. */
function groupsOf(node) {
  return node.groups.length ? node.groups : node.reads;
}

function drawGraph() {
  if (!drawn) return;
  show("graph-chart", drawNetwork, drawn.nodes.length + drawn.edges.length > BIG ? "canvas" : "svg");
  const { chart } = charts.get("graph-chart");
  chart.on("click", (p) => p.seriesName === "nodes" && select(p.data.id, groupsOf(drawn.nodes[p.data.id])));
  chart.on("datazoom", () => requestAnimationFrame(() => drawNetwork(chart)));
  chart.getZr().on("click", (event) => event.target || select(null, []));
  for (const [id, factor] of [["zoom-in", 0.6], ["zoom-out", 1 / 0.6]]) {
    document.getElementById(id).addEventListener("click", () => zoomBy(factor));
  }
  document.getElementById("fit").addEventListener("click", () => setZooms(chart, [[0, 100], [0, 100]]));
  document.getElementById("clear").addEventListener("click", () => select(null, []));
  const find = document.getElementById("find");
  document.getElementById("node-names").append(...drawn.nodes.map((n) => Object.assign(document.createElement("option"), { value: n.name })));
  find.addEventListener("change", () => {
    const asked = find.value.toLowerCase();
    let id = drawn.nodes.findIndex((n) => n.name === find.value);
    if (id < 0) id = drawn.nodes.findIndex((n) => asked && n.name.toLowerCase().includes(asked));
    if (id >= 0) select(id, groupsOf(drawn.nodes[id]), true);
    else document.getElementById("panel").replaceChildren(make("p", `No node is called ${find.value}.`));
  });
  for (const button of document.querySelectorAll(".jump")) {
    button.addEventListener("click", () => {
      const { node, group } = button.dataset;
      if (node !== undefined) select(+node, groupsOf(drawn.nodes[+node]), true);
      else select(null, [+group]);
      document.getElementById("graph").scrollIntoView();
    });
  }
}
