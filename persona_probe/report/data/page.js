"use strict";
// Draws the figures that the page carries as JSON, in the colours of the page's style sheet, and
// draws them again when the theme, the width or the medium (screen, paper) changes.
(() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const theme = () => ({
    "font.color": colour("--ink-2"),
    "title.font.color": colour("--ink"),
    "modebar.bgcolor": "rgba(0,0,0,0)",
    "modebar.color": colour("--ink-2"),
    "hoverlabel.bgcolor": colour("--raised"),
    "hoverlabel.bordercolor": colour("--rule"),
    "hoverlabel.font.color": colour("--ink"),
  });
  const paper = { "font.color": "#444", "title.font.color": "#000" };
  const put = (target, path, value) => {
    const keys = path.split(".");
    const last = keys.pop();
    for (const key of keys) target = target[key] ??= {};
    target[last] = value;
  };
  const config = {
    responsive: true,
    displaylogo: false,
    scrollZoom: false,
    modeBarButtons: [["toImage"]],
    toImageButtonOptions: { format: "svg", filename: "figure" },
  };
  const plots = [...document.querySelectorAll(".plot")];
  for (const box of plots) {
    const data = box.querySelector("script");
    const figure = JSON.parse(data.textContent);
    data.remove();
    for (const [path, value] of Object.entries(theme())) put(figure.layout, path, value);
    Plotly.newPlot(box, figure.data, figure.layout, config);
  }
  const repaint = () => plots.forEach((box) => Plotly.relayout(box, theme()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

  // On paper all but the long tables is unfolded, and figures take the width of the column they stand in.
  let opened = [];
  const unfold = () => {
    opened = [...document.querySelectorAll("details:not([open]):not(.long)")];
    opened.forEach((fold) => { fold.open = true; });
    plots.forEach((box) => {
      const width = box.parentElement.classList.contains("panels") ? 320 : 660;
      Plotly.relayout(box, { ...paper, width });
    });
  };
  const fold = () => {
    opened.forEach((item) => { item.open = false; });
    plots.forEach((box) => Plotly.relayout(box, { ...theme(), width: null, autosize: true }));
  };
  addEventListener("beforeprint", unfold);
  addEventListener("afterprint", fold);
})();
