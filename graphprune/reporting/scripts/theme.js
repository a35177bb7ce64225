"use strict";
/* Colours come from the style sheet; charts are drawn again when they change. */
const content = JSON.parse(document.getElementById("data").textContent);
const printing = window.matchMedia("print");
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const charts = new Map(); // element id -> {chart, draw}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

let paper = printing.matches;
const PAPER_WIDTH = 680; // pixels between the margins of A4 and Letter

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return !paper && (chosen ? chosen === "dark" : dark.matches);
}

function groupColour(group) {
  /* Neighbouring numbers are far apart in hue (golden angle). */
  const hue = (group * 137.508 + 205) % 360;
  return `hsl(${hue.toFixed(0)}, ${isDark() ? "62%, 62%" : "62%, 40%"})`;
}

function number(value) {
  return Math.round(value).toLocaleString("en-US");
}

function short(value) {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["K", 1e3]]) {
    if (Math.abs(value) >= size) return +(value / size).toPrecision(3) + " " + unit;
  }
  return String(+value.toPrecision(3));
}

/* Text from the model is only ever text: no HTML is made from it. */
function lines(...rows) {
  const box = document.createElement("div");
  for (const row of rows) {
    const line = document.createElement("div");
    line.textContent = row;
    box.append(line);
  }
  box.style.cssText = "max-width:22rem;white-space:normal;overflow-wrap:anywhere";
  return box;
}

function show(id, draw, renderer = "svg") {
  const place = document.getElementById(id);
  if (!place) return;
  const chart = echarts.init(place, null, { renderer });
  if (paper) chart.resize({ width: PAPER_WIDTH });
  charts.set(id, { chart, draw });
  draw(chart);
}

function base() {
  const ink = colour("ink"), soft = colour("soft"), line = colour("line");
  const axis = {
    axisLabel: { color: soft }, nameTextStyle: { color: soft }, axisLine: { lineStyle: { color: line } },
    axisTick: { lineStyle: { color: line } }, splitLine: { lineStyle: { color: line, opacity: 0.6 } },
  };
  return {
    axis,
    option: {
      animation: false,
      textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: ink },
      grid: { left: 8, right: 16, top: 44, bottom: 8, containLabel: true },
      legend: { top: 4, left: 0, type: "scroll", textStyle: { color: ink }, pageTextStyle: { color: ink } },
      tooltip: {
        trigger: "axis", confine: true, backgroundColor: colour("raised"), borderColor: line,
        textStyle: { color: ink },
      },
    },
  };
}

function redraw() {
  for (const { chart, draw } of charts.values()) {
    chart.resize({ width: paper ? PAPER_WIDTH : "auto" });
    draw(chart);
  }
}

function watchTheme() {
  document.getElementById("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    redraw();
  });
  dark.addEventListener("change", redraw);
  const print = (now) => {
    paper = now;
    redraw();
  };
  printing.addEventListener("change", () => print(printing.matches));
  window.addEventListener("beforeprint", () => print(true));
  window.addEventListener("afterprint", () => print(false));
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) redraw();
    width = window.innerWidth;
  });
}
