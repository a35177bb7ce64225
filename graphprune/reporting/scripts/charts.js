function layerBars(key) {
  const rows = (content.layers || []).map((layer, i) => ({ ...layer, number: i + 1 })).filter((layer) => layer.channels);
  const prunable = new Set((content.groups || []).filter((g) => g.prunable).map((g) => g.id));
  const free = (layer) => layer.groups.some((g) => prunable.has(g));
  return (chart) => {
    const { axis, option } = base();
    const bar = (name, data, tone) => ({
      name, type: "bar", stack: "all", data, itemStyle: { color: colour(tone) }, barMaxWidth: 28,
    });
    const series = content.done
      ? [
          bar("kept", rows.map((r) => r[key][1]), "kept"),
          bar("removed", rows.map((r) => r[key][0] - r[key][1]), "removed"),
          {
            name: "sparsity", type: "line", yAxisIndex: 1, symbolSize: 5,
            data: rows.map((r) => (r[key][0] ? 100 * (1 - r[key][1] / r[key][0]) : null)),
            itemStyle: { color: colour("ink") }, lineStyle: { width: 1.5, type: "dashed" },
          },
        ]
      : [
          bar("prunable", rows.map((r) => (free(r) ? r[key][0] : 0)), "kept"),
          bar("stays", rows.map((r) => (free(r) ? 0 : r[key][0])), "frozen"),
        ];
    option.tooltip.formatter = (points) => {
      const layer = rows[points[0].dataIndex], [before, after] = layer[key];
      const said = content.done
        ? [`${number(after)} of ${number(before)} kept (${before ? (100 * (1 - after / before)).toFixed(1) : 0} % removed)`]
        : [number(before)];
      return lines(layer.name, layer.op, ...said, ...(layer.reason ? ["stays: " + layer.reason] : []));
    };
    chart.setOption({
      ...option,
      aria: { enabled: true },
      xAxis: {
        ...axis, type: "category", data: rows.map((r) => String(r.number)), name: "operator", nameLocation: "middle",
        nameGap: 28, splitLine: { show: false },
      },
      yAxis: [
        { ...axis, type: "value", axisLabel: { ...axis.axisLabel, formatter: short } },
        {
          ...axis, type: "value", min: 0, max: 100, show: Boolean(content.done), splitLine: { show: false },
          axisLabel: { ...axis.axisLabel, formatter: "{value} %" },
        },
      ],
      grid: { ...option.grid, bottom: 24 },
      series,
    }, true);
  };
}

function phaseBands(history) {
  const bands = [];
  history.phase.forEach((phase, i) => {
    const last = bands[bands.length - 1];
    if (last && last.phase === phase) last.to = history.step[i];
    else bands.push({ phase, from: last ? last.to : 0, to: history.step[i] });
  });
  return bands;
}

function curves(names, steps, { log = false, percent = false, bands = [], label = "step" } = {}) {
  return (chart) => {
    const { axis, option } = base();
    const tones = [colour("kept"), colour("removed"), colour("ink"), colour("good")];
    const series = names.map(([name, values], i) => ({
      name, type: "line", showSymbol: values.length < 3, lineStyle: { type: i === 2 ? "dashed" : "solid" },
      itemStyle: { color: tones[i % tones.length] },
      data: values.map((v, k) => [steps[k], v === null || (log && v <= 0) ? null : percent ? 100 * v : v]),
    }));
    if (series.length && bands.length > 1) {
      series[0].markArea = {
        silent: true, label: { color: colour("soft"), position: "insideTop" },
        data: bands.map((b, i) => [
          { name: b.phase, xAxis: b.from, itemStyle: { color: colour("line"), opacity: i % 2 ? 0.35 : 0.12 } },
          { xAxis: b.to },
        ]),
      };
    }
    option.tooltip.formatter = (points) =>
      lines(`${label} ${points[0].data[0]}`, ...points.map((p) =>
        `${p.seriesName}: ${p.data[1] === null ? "–" : +p.data[1].toPrecision(4)}${percent ? " %" : ""}`));
    chart.setOption({
      ...option,
      aria: { enabled: true },
      xAxis: { ...axis, type: "value", name: label, nameLocation: "middle", nameGap: 28, min: "dataMin", max: "dataMax" },
      yAxis: {
        ...axis, type: log ? "log" : "value", scale: !percent,
        axisLabel: { ...axis.axisLabel, formatter: percent ? "{value} %" : (v) => String(+v.toPrecision(3)) },
      },
      grid: { ...option.grid, bottom: 24 },
      series,
    }, true);
  };
}

function drawCharts() {
  show("channels-chart", layerBars("channels"));
  show("params-chart", layerBars("params"));
  const history = content.history;
  if (history) {
    const bands = phaseBands(history);
    show("loss-chart", curves([["loss", history.loss]], history.step, { bands }));
    show("masks-chart", curves(
      [["cost kept", history.kept], ["undecided masks", history.undecided], ["target", history.target]],
      history.step, { percent: true, bands },
    ));
    show("temperature-chart", curves([["temperature", history.temperature]], history.step, { log: true, bands }));
  }
  const left = content.curves;
  if (left) {
    const names = Object.entries(left);
    const longest = Math.max(...names.map(([, values]) => values.length));
    show("curves-chart", curves(names, Array.from({ length: longest }, (_, i) => i + 1)));
  }
  const sensitivity = content.sensitivity;
  if (sensitivity) {
    show("sensitivity-chart", curves(
      sensitivity.groups.map((g) => [g.name, g.values]),
      sensitivity.ratios.map((r) => +(100 * r).toPrecision(6)), { label: "% removed" },
    ));
  }
}
