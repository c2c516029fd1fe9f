"use strict";
// Draws the figures that the page carries as JSON, in the colours of the page's style sheet, those in
// sight first; draws them again when the theme, the width or the medium (screen, paper) changes; and
// leads from a number or a point to its row.
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
  const written = (data) => data.filter((trace) => trace.mode === "text");
  const plots = [...document.querySelectorAll(".plot")];
  const drawn = () => plots.filter((box) => box.data);
  const folded = (box) => box.closest("details:not([open])") !== null;

  const draw = (box) => {
    const data = box.querySelector("script");
    if (!data) return;
    const figure = JSON.parse(data.textContent);
    data.remove();
    for (const [path, value] of Object.entries(theme())) put(figure.layout, path, value);
    for (const trace of written(figure.data)) put(trace, "textfont.color", colour("--ink"));
    Plotly.newPlot(box, figure.data, figure.layout, config);
    box.on("plotly_click", ({ points }) => {
      const to = points[0]?.customdata;
      if (typeof to === "string" && to.startsWith("#")) location.hash = to;
    });
  };
  // What comes into sight is drawn at once, the rest one by one while nothing else is to do; what is
  // folded has no width, and waits until it is opened.
  const watch = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) if (isIntersecting && !folded(target)) draw(target);
  }, { rootMargin: "600px" });
  plots.forEach((box) => watch.observe(box));
  const rest = () => {
    const next = plots.find((box) => !box.data && !folded(box));
    if (!next) return;
    draw(next);
    setTimeout(rest);
  };
  addEventListener("load", () => setTimeout(rest));
  document.querySelectorAll("details").forEach((fold) => fold.addEventListener("toggle", () => {
    if (!fold.open) return;
    for (const box of fold.querySelectorAll(".plot")) {
      if (folded(box)) continue;
      if (box.data) Plotly.Plots.resize(box);
      else draw(box);
    }
  }));

  // The row may stand in a list that is folded.
  const show = () => {
    const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!row) return;
    for (let box = row.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
    row.scrollIntoView({ block: row.matches("li") ? "center" : "start" });
  };
  addEventListener("hashchange", show);
  if (location.hash) show();

  const write = (box, ink) => {
    const traces = written(box.data).map((trace) => box.data.indexOf(trace));
    if (traces.length) Plotly.restyle(box, { "textfont.color": ink }, traces);
  };
  const repaint = () => drawn().forEach((box) => {
    write(box, colour("--ink"));
    Plotly.relayout(box, theme());
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

  // On paper all but the long tables is unfolded, and figures take the width of the column they stand in.
  let opened = [];
  const unfold = () => {
    opened = [...document.querySelectorAll("details:not([open]):not(.long)")];
    opened.forEach((fold) => { fold.open = true; });
    plots.filter((box) => !folded(box)).forEach((box) => {
      draw(box);
      write(box, "#000");
      const width = box.parentElement.classList.contains("panels") ? 320 : 660;
      Plotly.relayout(box, { ...paper, width });
    });
  };
  const fold = () => {
    opened.forEach((item) => { item.open = false; });
    drawn().forEach((box) => {
      write(box, colour("--ink"));
      Plotly.relayout(box, { ...theme(), width: null, autosize: true });
    });
  };
  addEventListener("beforeprint", unfold);
  addEventListener("afterprint", fold);
})();
