// The playground's page. All text of the model, the pack and the files is set as text, never as
// markup, and everything it asks for comes from the server that sent it.

const SVG = "http://www.w3.org/2000/svg";
const SIDES = ["unsteered", "steered"];
const FARTHEST = 2; // where a slider ends; its number may go on
const FULL = 0.5; // class gaps from the middle at which a token has its full tint
const REST = 120; // milliseconds without a movement before anything is asked for

const at = (id) => document.getElementById(id);
let about, asking, profiling, resting;
const charts = {};
const tokens = [[], []];

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function draw(tag, attributes = {}) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

const signed = (value, digits = 2) =>
  value === null ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
const ranged = (estimate) =>
  estimate.value === null ? "–"
    : signed(estimate.value) + (estimate.low === null ? "" : ` [${signed(estimate.low)}, ${signed(estimate.high)}]`);

// ---------------------------------------------------------------- what the controls say

const persona = (name) => about.personas.find((p) => p.name === name);
const layerNow = () => about.layers[Number(at("layer").value)];

function strengths() {
  const there = new Set(layerNow().personas);
  return Object.fromEntries(about.personas.filter((p) => there.has(p.name))
    .map((p) => [p.name, Number(at(`number-${p.name}`).value) || 0]));
}

const setting = () => ({ layer: layerNow().layer, strengths: strengths(), positions: at("positions").value });

function largest() {
  const sorted = Object.entries(strengths()).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  return sorted.length && sorted[0][1] !== 0 ? sorted[0][0] : null;
}

function colourBy() {
  const chosen = at("colour").value;
  const there = layerNow().personas;
  return chosen !== "" && there.includes(chosen) ? chosen : largest() ?? there[0];
}

function complain(message) {
  at("error").textContent = message ?? "";
  at("error").hidden = !message;
}

// Busy from the first movement until the profile of the last one is there.
const busy = (on) => at("results").setAttribute("aria-busy", on);

// ---------------------------------------------------------------- requests

async function post(path, body, signal) {
  const answer = await fetch(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
  });
  if (!answer.ok) throw new Error((await answer.json()).error ?? `the server answered ${answer.status}`);
  return answer;
}

async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) if (part) yield JSON.parse(part);
  }
}

async function reply() {
  asking?.abort();
  profiling?.abort();
  const mine = (asking = new AbortController());
  busy(true);
  const axis = colourBy();
  tone(axis);
  const began = performance.now();
  let first = null, count = 0;
  try {
    const question = {
      ...setting(), text: at("text").value, colour: axis, system: at("system").value,
      temperature: Number(at("temperature").value) || 0, seed: Math.round(Number(at("seed").value)) || 0,
    };
    const answer = await post("reply", question, mine.signal);
    const fresh = [[], []];
    for await (const piece of lines(answer)) {
      if (mine !== asking) return;
      if (piece.end === "failed") throw new Error(piece.error);
      if (piece.end) break;
      if (first === null) { first = performance.now() - began; clearReplies(); }
      fresh[piece.row].push(piece);
      count += 1;
      show(piece);
    }
    if (mine !== asking) return;
    if (first === null) clearReplies();
    complain(null);
    finished(first, count, performance.now() - began);
    profile();
  } catch (error) {
    if (error.name === "AbortError" || mine !== asking) return;
    complain(error.message);
    busy(false);
  }
}

async function profile() {
  profiling?.abort();
  const mine = (profiling = new AbortController());
  busy(true);
  try {
    const measured = await (await post("profile", setting(), mine.signal)).json();
    if (mine === profiling) showProfile(measured);
  } catch (error) {
    if (error.name !== "AbortError" && mine === profiling) complain(error.message);
  } finally {
    if (mine === profiling && !resting) busy(false);
  }
}

async function save() {
  const said = at("saved");
  try {
    const kept = await (await post("save", { ...setting(), name: at("name").value.trim() })).json();
    said.replaceChildren("Saved to ", make("code", {}, kept.vector), "Use it with ", make("code", {}, kept.command));
  } catch (error) {
    said.replaceChildren(error.message);
  }
}

// ---------------------------------------------------------------- replies

const paint = (name, colour) => document.documentElement.style.setProperty(name, colour);

function tone(axis) {
  const { title } = persona(axis);
  paint("--mix", persona(largest() ?? axis).colour);
  at("low").textContent = signed(-FULL, 1);
  at("high").textContent = `${signed(FULL, 1)} class gaps towards ${title}`;
  const added = Object.entries(strengths()).filter(([, amount]) => amount !== 0);
  at("mix").textContent = added.map(([name, amount]) => `${signed(amount)} ${persona(name).title}`).join(", ") || "nothing added";
}

function clearReplies() {
  for (const side of [0, 1]) {
    tokens[side] = [];
    at(`reply-${side}`).replaceChildren();
    at(`mean-${side}`).textContent = "";
  }
}

function show(piece) {
  const share = Math.min(Math.abs(piece.value) / FULL, 1) * about.tint * 100;
  const span = make("span", {}, piece.text);
  span.style.background =
    `color-mix(in srgb, var(${piece.value > 0 ? "--high" : "--low"}) ${share.toFixed(1)}%, transparent)`;
  const mine = tokens[piece.row];
  span.dataset.number = mine.length;
  mine.push(piece);
  at(`reply-${piece.row}`).append(span);
  const mean = mine.reduce((sum, p) => sum + p.value, 0) / mine.length;
  at(`mean-${piece.row}`).textContent = `${mine.length} tokens, on average at ${signed(mean)} class gaps`;
}

function finished(first, count, all) {
  for (const side of [0, 1])
    if (!tokens[side].length) at(`mean-${side}`).textContent = "the model ends at once";
  const same = tokens[0].map((p) => p.text).join("") === tokens[1].map((p) => p.text).join("");
  const none = largest() === null;
  const said = same ? (none ? "All sliders are at 0: the replies are the same. " : "The two replies are the same. ") : "";
  at("pace").textContent = first === null ? said
    : `${said}First token after ${Math.round(first)} ms, ${Math.round(count / (all / 1000))} tokens/s.`;
}

function tell(side, number) {
  for (const node of document.querySelectorAll(".here")) node.classList.remove("here");
  const piece = tokens[side][number];
  if (!piece) return;
  at(`reply-${side}`).children[number].classList.add("here");
  const title = persona(colourBy()).title;
  at("told").replaceChildren(
    `${SIDES[side]}, token ${number + 1} of ${tokens[side].length}: `,
    make("b", {}, JSON.stringify(piece.text)), ` ${signed(piece.value)} class gaps along ${title}`);
}

function listenToTokens(side) {
  const box = at(`reply-${side}`);
  let here = 0;
  box.addEventListener("pointerover", (event) => {
    if (event.target.dataset.number) tell(side, (here = Number(event.target.dataset.number)));
  });
  box.addEventListener("focus", () => tell(side, (here = Math.min(here, tokens[side].length - 1))));
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const jump = { Home: 0, End: tokens[side].length - 1 }[event.key];
    if (step === undefined && jump === undefined) return;
    event.preventDefault();
    here = jump ?? Math.max(0, Math.min(tokens[side].length - 1, here + step));
    tell(side, here);
  });
}

// ---------------------------------------------------------------- profile

// One row per name, from -1 to 1; marks are made once and move.
class Chart {
  constructor(box, names) {
    this.box = box;
    this.names = names;
    this.rows = [];
    this.values = null;
    new ResizeObserver(() => this.build()).observe(box);
    this.build();
  }

  build() {
    const width = Math.max(this.box.clientWidth, 240), row = 26, top = 4;
    const label = Math.min(Math.max(...this.names.map((n) => n.length)) * 7.9 + 16, width * 0.42);
    this.x = (value) => label + ((value + 1) / 2) * (width - label - 12);
    const height = top + row * this.names.length;
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height + 22}`, role: "img" });
    svg.style.height = `${height + 22}px`;
    this.svg = svg;
    for (const value of [-1, -0.5, 0, 0.5, 1]) {
      const x = this.x(value);
      svg.append(draw("line", { x1: x, x2: x, y1: 0, y2: height, class: value === 0 ? "zero" : "grid" }));
      const tick = draw("text", { x, y: height + 16, "text-anchor": "middle", class: "tick" });
      tick.textContent = value === 0 ? "0" : signed(value, value % 1 ? 1 : 0);
      svg.append(tick);
    }
    this.rows = this.names.map((name, index) => {
      const y = top + row * index + row / 2;
      const text = draw("text", { x: label - 12, y: y + 4.5, "text-anchor": "end" });
      text.textContent = name;
      svg.append(text);
      const whiskers = ["thin", ""].map((kind) => draw("line", { class: `whisker ${kind}`, y1: y, y2: y, x1: 0, x2: 0 }));
      const marks = {
        random: draw("path", { d: `M0 ${y - 7} V${y + 7}`, class: "chance" }),
        unsteered: draw("circle", { cx: 0, cy: y, r: 5, class: "before" }),
        steered: draw("path", { d: `M0 ${y - 7} L7 ${y} L0 ${y + 7} L-7 ${y} Z`, class: "after" }),
      };
      const groups = Object.fromEntries(Object.entries(marks).map(([key, mark]) => {
        const group = draw("g", { class: "mark" });
        group.append(mark);
        return [key, group];
      }));
      svg.append(...whiskers, ...Object.values(groups));
      return { whiskers, groups };
    });
    this.box.replaceChildren(svg);
    if (this.values) this.show(this.values);
  }

  show(values) {
    this.values = values;
    values.forEach((value, index) => {
      const { whiskers, groups } = this.rows[index];
      for (const [key, group] of Object.entries(groups)) this.place(group, value[key]);
      this.stretch(whiskers[0], value.unsteered);
      this.stretch(whiskers[1], value.steered);
    });
    this.svg.setAttribute("aria-label", values.map((v) => `${v.name}: ${
      v.unsteered ? `unsteered ${ranged(v.unsteered)}, ` : ""}steered ${ranged(v.steered)}`).join("; "));
  }

  place(group, estimate) {
    const known = estimate && estimate.value !== null;
    group.style.opacity = known ? 1 : 0;
    if (known) group.style.transform = `translateX(${this.x(estimate.value)}px)`;
  }

  stretch(line, estimate) {
    const known = estimate && estimate.low !== null;
    line.style.opacity = known ? 1 : 0;
    if (!known) return;
    line.setAttribute("x1", this.x(estimate.low));
    line.setAttribute("x2", this.x(estimate.high));
  }
}

function showProfile(measured) {
  const n = measured.items, per = measured.dimensions.map((d) => d.unsteered.n);
  const few = Math.min(...per), many = Math.max(...per);
  const mass = Object.values(measured.option_mass).reduce((a, b) => Math.min(a, b));
  at("profile-note").textContent = `Mean answer on ${n} held-out items (${few === many ? few : `${few} to ${many}`} per dimension), `
    + `+1 fully for, −1 fully against; the two options hold at least ${Math.round(mass * 100)}\u00a0% of the probability.`
    + (mass < 0.5 ? " Below 50 % the model is not answering the question." : "");
  charts.profile ??= new Chart(at("profile"), measured.dimensions.map((d) => d.name));
  charts.profile.show(measured.dimensions);
  at("matches-box").hidden = !measured.matches.length;
  if (measured.matches.length) {
    charts.matches ??= new Chart(at("matches"), measured.matches.map((m) => m.title));
    charts.matches.show(measured.matches.map((m) => ({ ...m, name: m.title })));
  }
  const cells = (row) => make("tr", {}, ...row.map((text, i) => make(i ? "td" : "th", i ? {} : { scope: "row" }, text)));
  const head = (names) => make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name))));
  at("numbers").replaceChildren(
    head(["", "unsteered", "steered", "random", "n"]),
    make("tbody", {}, ...measured.dimensions.map((d) =>
      cells([d.name, ranged(d.unsteered), ranged(d.steered), ranged(d.random), String(d.unsteered.n)])),
    ...measured.matches.map((m) => cells([`match: ${m.title}`, "", ranged(m.steered), ranged(m.random), String(m.steered.n)]))));
}

// ---------------------------------------------------------------- the controls

function moved() {
  for (const range of document.querySelectorAll("input[type=range]")) fill(range);
  tone(colourBy());
  busy(true);
  clearTimeout(resting);
  resting = setTimeout(rested, REST);
}

// The profile follows the reply, so that a reply's first token waits for nothing.
function rested() {
  resting = null;
  if (at("live").checked) reply();
  else profile();
}

function fill(range) {
  const { min, max, value } = range;
  range.style.setProperty("--to", max > min ? (value - min) / (max - min) : 0);
}

function saySite() {
  const { layer, personas } = layerNow();
  at("layer-said").textContent = `after block ${layer}, of 0 to ${about.n_layers - 1}`;
  for (const { name } of about.personas) {
    const here = personas.includes(name);
    at(`slider-${name}`).classList.toggle("off", !here);
    for (const kind of ["range", "number"]) at(`${kind}-${name}`).disabled = !here;
  }
}

function slider({ name, title, colour }) {
  const limits = { step: "0.05", value: "0" };
  const range = make("input", { ...limits, type: "range", id: `range-${name}`, min: -FARTHEST, max: FARTHEST, list: "zero-tick" });
  const number = make("input", { ...limits, type: "number", id: `number-${name}`, "aria-label": `${title}, as a number` });
  range.addEventListener("input", () => { number.value = range.value; moved(); });
  number.addEventListener("input", () => { range.value = number.value; moved(); });
  const box = make("div", { class: "slider", id: `slider-${name}` }, make("label", { for: range.id }, title), range, number);
  box.style.setProperty("--tone", colour);
  return box;
}

function build() {
  paint("--low", about.ends[0]);
  paint("--high", about.ends[1]);
  paint("--tint", `${about.tint * 100}%`);
  at("model").textContent = [about.model, about.adapter ? `adapter ${about.adapter}` : "no adapter", `pack ${about.pack}`].join(" · ");
  const unit = about.units === "norm" ? "median residual norms" : "class gaps";
  at("sliders").append(make("p", { class: "quiet" }, `in ${unit} at the site; 0 changes nothing`),
    make("datalist", { id: "zero-tick" }, make("option", { value: "0" })), ...about.personas.map(slider));
  at("layer").max = about.layers.length - 1;
  at("layer").value = about.layers.findIndex((l) => l.layer === about.layer);
  for (const name of about.schedules)
    at("positions").append(make("option", { value: name }, name.replaceAll("_", " ") + (name === about.positions ? " (where read)" : "")));
  at("positions").value = about.positions;
  at("colour").append(make("option", { value: "" }, "the largest slider"),
    ...about.personas.map((p) => make("option", { value: p.name }, p.title)));
  at("example").append(make("option", { value: "" }, "choose …"),
    ...about.examples.map((e) => make("option", { value: e.text }, `${e.category}: ${e.text}`)));
  at("text").value = about.examples[0]?.text ?? "Hello.";
  at("system").value = about.system;
  saySite();
}

function listen() {
  at("controls").addEventListener("submit", (event) => { event.preventDefault(); reply(); });
  at("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); reply(); }
  });
  at("example").addEventListener("change", () => {
    if (at("example").value) { at("text").value = at("example").value; reply(); }
  });
  at("layer").addEventListener("input", () => { saySite(); moved(); });
  at("positions").addEventListener("change", moved);
  at("colour").addEventListener("change", reply);
  for (const id of ["temperature", "seed", "system"]) at(id).addEventListener("change", reply);
  at("zero").addEventListener("click", () => {
    for (const { name } of about.personas) at(`range-${name}`).value = at(`number-${name}`).value = 0;
    moved();
  });
  at("save").addEventListener("click", save);
  at("name").addEventListener("keydown", (event) => {
    if (event.key === "Enter") { event.preventDefault(); save(); }
  });
  listenToTokens(0);
  listenToTokens(1);
}

try {
  about = await (await fetch("about")).json();
  build();
  listen();
  moved();
} catch (error) {
  complain(error.message);
}
