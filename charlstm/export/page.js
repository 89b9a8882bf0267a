
// The page around the model: its settings, its buttons, and `charlstm.generate` for scripts.

"use strict";

const element = (id) => document.getElementById(id);
const description = JSON.parse(element("model").textContent);
const known = new Set(description.characters);
const numbers = ["temperature", "topP", "length", "seed"];
const LIMITS = {
  temperature: [0, 1000],
  topP: [Number.MIN_VALUE, 1],
  length: [1, 1e6],
  seed: [0, Number.MAX_SAFE_INTEGER],
};

// -- the worker -----------------------------------------------------------------------------------------------------

const scripts = ["lstm", "worker"].map((id) => element(id).textContent);
const source = new Blob(scripts, { type: "text/javascript" });
const worker = new Worker(URL.createObjectURL(source));
const waiting = new Map(); // what to do with the answers to a message, by its id
let messages = 0;

worker.onmessage = ({ data }) => waiting.get(data.id)?.(data);
worker.onerror = (event) => say(`The model could not be started: ${event.message}`);

/** Send a message; returns its id and a promise of the last answer. Texts come piece by piece, through `onText`. */
function ask(message, onText = () => {}) {
  const id = ++messages;
  const answer = new Promise((resolve, reject) => {
    waiting.set(id, (reply) => {
      if (reply.text) onText(reply);
      if (reply.done === false) return;
      waiting.delete(id);
      if (reply.error) reject(new RangeError(reply.error));
      else resolve(reply);
    });
  });
  worker.postMessage({ ...message, id });
  return { id, answer };
}

ask({ ask: "load", model: description, weights: element("weights").textContent }).answer.catch((error) => {
  say(`The model could not be read: ${error.message}`);
});

// -- for scripts ----------------------------------------------------------------------------------------------------

const anySeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

/** Settings whose numbers are within their limits. */
function checked(settings) {
  for (const name of numbers) {
    const [least, most] = LIMITS[name], value = settings[name];
    const whole = name === "length" || name === "seed";
    if (!(whole ? Number.isInteger(value) : Number.isFinite(value)) || value < least || value > most) {
      throw new RangeError(`${name} ${value} is out of range`);
    }
  }
  return { ...settings, prompt: String(settings.prompt) };
}

/** Write a text after a prompt: a promise of it, without the prompt. What is not given is as the page begins with. */
async function generate(settings = {}) {
  const all = checked({ ...description.settings, prompt: "", seed: anySeed(), ...settings });
  let text = "";
  await ask({ ask: "write", ...all }, (reply) => (text += reply.text)).answer;
  return text;
}

/**
 * The probability of every character after a prompt: a promise of an array in the order of `charlstm.characters`.
 * Without settings they are the model's own, otherwise those that `generate` chooses from.
 */
async function predict(prompt = "", { temperature = 1, topP = 1 } = {}) {
  const all = checked({ prompt, temperature, topP, length: 1, seed: 0 });
  return (await ask({ ask: "predict", ...all }).answer).probabilities;
}

globalThis.charlstm = Object.freeze({ generate, predict, characters: Object.freeze([...known]) });

// -- the text that is shown -----------------------------------------------------------------------------------------

const sheet = element("text");
const levels = [["one", 3], ["two", 5]]; // the least surprise in nats; `charlstm eval --show` has the same bounds
const canColour = "highlights" in CSS;
let shown = document.createTextNode("");
let surprising = []; // [level, start, end] in `shown`
let letter = 0; // where the last character begins that is no combining mark
let current = null; // the text being written

function say(sentence) {
  element("status").textContent = sentence;
}

function clear(prompt) {
  const before = document.createElement("span");
  before.className = "prompt";
  before.textContent = prompt;
  shown = document.createTextNode("");
  sheet.replaceChildren(before, shown);
  surprising = [];
  letter = 0;
  colour();
}

/** Show a piece of text, and note its surprising characters: a combining mark counts for its letter. */
function show({ text, surprises }) {
  const from = surprising.length;
  let start = shown.length, k = 0, visible = "";
  for (const character of text) {
    if (character === "\n" && sheet.textContent + visible === "") {
      k++; // a text without a prompt often begins with empty lines, which are not shown
      continue;
    }
    visible += character;
    if (!/[\p{M}\u200d]/u.test(character)) letter = start;
    const level = levels.findLastIndex(([, nats]) => surprises[k] >= nats);
    if (level >= 0) surprising.push([level, letter, start + character.length]);
    start += character.length;
    k++;
  }
  if (!shown.length && visible) performance.mark("first-character");
  shown.appendData(visible);
  colour(from);
}

/** Colour the surprising characters from one on, or none. Highlights leave the text whole, so its letters join. */
function colour(from = 0) {
  if (!canColour) return;
  const wanted = element("colours").checked;
  element("legend").hidden = !wanted;
  if (!from) levels.forEach(([name]) => CSS.highlights.set(name, new Highlight()));
  for (const [level, start, end] of wanted ? surprising.slice(from) : []) {
    const range = { startContainer: shown, startOffset: start, endContainer: shown, endOffset: end };
    CSS.highlights.get(levels[level][0]).add(new StaticRange(range));
  }
}

// -- settings, in the form and in the link --------------------------------------------------------------------------

const promptOf = () => element("prompt").value.replace(/\r\n?/g, "\n");

function link() {
  const settings = new URLSearchParams({ prompt: promptOf() });
  for (const name of numbers) settings.set(name, element(name).value);
  if (element("colours").checked) settings.set("colours", "1");
  return `${location.href.split("#")[0]}#${settings}`;
}

/** Set the form as a link says; what it leaves out, or what is out of range, stays. */
function follow(hash) {
  const settings = new URLSearchParams(hash.slice(1));
  if (settings.has("prompt")) element("prompt").value = settings.get("prompt");
  for (const name of numbers) {
    const input = element(name), before = input.value, value = Number(settings.get(name) || NaN);
    if (value >= input.min && value <= input.max) input.value = value;
    if (!input.checkValidity()) input.value = before;
  }
  element("new-seed").checked = !settings.has("seed");
  if (settings.has("colours")) element("colours").checked = settings.get("colours") === "1";
  tell();
}

/** Show what the sliders stand at, and which characters of the prompt the model does not know. */
function tell() {
  for (const name of ["temperature", "topP"]) element(`${name}-shown`).value = Number(element(name).value).toFixed(2);
  const unknown = [...new Set(promptOf())].filter((character) => !known.has(character));
  const some = unknown.slice(0, 8).map((c) => (/[\p{L}\p{N}\p{P}\p{S}]/u.test(c) ? c : JSON.stringify(c))).join(" ");
  element("prompt-hint").textContent = unknown.length
    ? `Left out, because the model never saw it: ${some}${unknown.length > 8 ? " and more" : ""}`
    : "";
}

// -- writing --------------------------------------------------------------------------------------------------------

async function start() {
  stop();
  if (!element("form").reportValidity()) return;
  if (element("new-seed").checked) element("seed").value = anySeed();
  const settings = Object.fromEntries(numbers.map((name) => [name, Number(element(name).value)]));
  const prompt = [...promptOf()].filter((character) => known.has(character)).join("");
  try {
    history.replaceState(null, "", link());
  } catch {
    // a page in a frame without an address of its own: its link can still be copied
  }
  clear(prompt);
  say("Writing …");
  sheet.setAttribute("aria-busy", "true");
  element("write").textContent = "Stop";
  let made = 0;
  const began = performance.now();
  const text = ask({ ask: "write", prompt, ...settings }, (reply) => {
    if (text !== current) return;
    made += reply.surprises.length;
    show(reply);
  });
  current = text;
  let outcome;
  try {
    await text.answer;
    const seconds = (performance.now() - began) / 1000;
    const rate = made > 1 ? `, ${Math.round(made / seconds).toLocaleString("en")} per second` : "";
    outcome = `${made.toLocaleString("en")} characters${rate}.`;
    if (made < settings.length) outcome = `Stopped after ${outcome}`;
  } catch (error) {
    outcome = `Nothing was written: ${error.message}.`;
  }
  if (text !== current) return;
  current = null;
  sheet.setAttribute("aria-busy", "false");
  element("write").textContent = "Write";
  say(outcome);
}

function stop() {
  if (current) worker.postMessage({ ask: "stop", id: current.id });
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = document.createElement("textarea"); // where a page may not reach the clipboard itself
    field.value = text;
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    if (!copied) return say(`This browser does not let a page copy: select the ${what} and copy it by hand.`);
  }
  say(`The ${what} is copied.`);
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (current) return stop();
  start();
  if (sheet.getBoundingClientRect().top > innerHeight * 0.8) sheet.scrollIntoView({ block: "start" });
});
element("form").addEventListener("input", tell);
element("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) element("form").requestSubmit();
});
addEventListener("keydown", (event) => event.key === "Escape" && stop());
addEventListener("hashchange", () => {
  follow(location.hash);
  start();
});
element("seed").addEventListener("input", () => (element("new-seed").checked = false));
element("colours").addEventListener("change", () => colour());
element("copy-text").addEventListener("click", () => copy(sheet.textContent, "text"));
element("copy-link").addEventListener("click", () => copy(link(), "link"));

element("colouring").hidden = !canColour;
element("settings").open = matchMedia("(min-width: 56rem)").matches;
follow(location.hash);
start();
